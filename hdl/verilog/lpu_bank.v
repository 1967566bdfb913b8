// SRAM bank for simulation: the twin of hdl/mem.py's Bank, same ports, same latency, any depth.
// A read of the word being written in the same cycle returns the old word.
//
// Starts as zeros, or, as a bitstream would have it, with contents: with the plusarg +contents=FOLDER, a bank takes
// the words of FOLDER/PATH.hex where there is such a file; PATH is this instance's, from the top module on.
module lpu_bank #(
    parameter WIDTH = 8,
    parameter DEPTH = 2,
    parameter ABITS = 1,
    parameter PARTS = 1,
    parameter LATENCY = 2
) (
    input wire clk,
    input wire r_en,
    input wire [ABITS-1:0] r_addr,
    output wire [WIDTH-1:0] r_data,
    input wire [PARTS-1:0] w_en,
    input wire [ABITS-1:0] w_addr,
    input wire [WIDTH-1:0] w_data
);
  localparam PART = WIDTH / PARTS;
  reg [WIDTH-1:0] words[0:DEPTH-1];
  reg [WIDTH-1:0] word;
  integer i, file;
  reg [8*1024-1:0] folder, path;
  initial begin
    for (i = 0; i < DEPTH; i = i + 1) words[i] = {WIDTH{1'b0}};
    word = {WIDTH{1'b0}};
    if ($value$plusargs("contents=%s", folder) != 0) begin
      $sformat(path, "%0s/%m.hex", folder);
      file = $fopen(path, "r");
      if (file != 0) begin
        $fclose(file);
        $readmemh(path, words);
      end
    end
  end
  always @(posedge clk) if (r_en) word <= words[r_addr];
  generate
    if (LATENCY == 2) begin : registered
      reg [WIDTH-1:0] out;
      initial out = {WIDTH{1'b0}};
      always @(posedge clk) out <= word;
      assign r_data = out;
    end else begin : direct
      assign r_data = word;
    end
  endgenerate
  genvar p;
  generate
    for (p = 0; p < PARTS; p = p + 1) begin : part
      always @(posedge clk) if (w_en[p]) words[w_addr][p*PART+:PART] <= w_data[p*PART+:PART];
    end
  endgenerate
endmodule
