// SRAM bank for simulation: the twin of hdl/mem.py's Bank, same ports, same latency, any depth.
// Starts as zeros. A read of the word being written in the same cycle returns the old word.
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
  reg [WIDTH-1:0] array[0:DEPTH-1];
  reg [WIDTH-1:0] word;
  integer i;
  initial begin
    for (i = 0; i < DEPTH; i = i + 1) array[i] = {WIDTH{1'b0}};
    word = {WIDTH{1'b0}};
  end
  always @(posedge clk) if (r_en) word <= array[r_addr];
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
      always @(posedge clk) if (w_en[p]) array[w_addr][p*PART+:PART] <= w_data[p*PART+:PART];
    end
  endgenerate
endmodule
