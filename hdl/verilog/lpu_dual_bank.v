// SRAM bank with two ports for simulation: the twin of hdl/mem.py's DualBank, same ports, same latency, any depth.
// A read of the word being written in the same cycle returns the old word.
//
// Contents as those of lpu_bank.v.
module lpu_dual_bank #(
    parameter WIDTH = 8,
    parameter DEPTH = 2,
    parameter ABITS = 1
) (
    input wire clk,
    input wire r_en,
    input wire [ABITS-1:0] r_addr,
    output reg [WIDTH-1:0] r_data,
    input wire u_en,
    input wire u_write,
    input wire [ABITS-1:0] u_addr,
    input wire [WIDTH-1:0] u_data,
    output reg [WIDTH-1:0] u_q
);
  reg [WIDTH-1:0] words[0:DEPTH-1];
  reg [WIDTH-1:0] r_word, u_word;
  integer i, file;
  reg [8*1024-1:0] folder, path;
  initial begin
    for (i = 0; i < DEPTH; i = i + 1) words[i] = {WIDTH{1'b0}};
    r_word = {WIDTH{1'b0}};
    u_word = {WIDTH{1'b0}};
    r_data = {WIDTH{1'b0}};
    u_q = {WIDTH{1'b0}};
    if ($value$plusargs("contents=%s", folder) != 0) begin
      $sformat(path, "%0s/%m.hex", folder);
      file = $fopen(path, "r");
      if (file != 0) begin
        $fclose(file);
        $readmemh(path, words);
      end
    end
  end
  always @(posedge clk) begin
    if (r_en) r_word <= words[r_addr];
    if (u_en && !u_write) u_word <= words[u_addr];
    r_data <= r_word;
    u_q <= u_word;
    if (u_write) words[u_addr] <= u_data;
  end
endmodule
