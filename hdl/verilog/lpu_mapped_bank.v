// SRAM bank for simulation whose words lie in the host's memory: same ports and latency as lpu_bank.v, for banks so
// large that a simulator should not hold, clear and be loaded with them through a link. The program that runs the model
// finds the words by this instance's path (sim/harness/memory.h), and reads and writes them between cycles.
//
// A word takes as many 64-bit parts as it needs, the lowest bits first. A read of the word being written in the same
// cycle returns the old word. Starts as zeros. A simulator without Verilator's DPI has lpu_bank.v instead.
module lpu_mapped_bank #(
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
`ifdef VERILATOR
  import "DPI-C" function chandle lpu_memory_open(
      input string path,
      input int unsigned parts,
      input int unsigned depth
  );
  import "DPI-C" function longint unsigned lpu_memory_get(
      input chandle memory,
      input int unsigned address,
      input int unsigned part
  );
  import "DPI-C" function void lpu_memory_put(
      input chandle memory,
      input int unsigned address,
      input int unsigned part,
      input longint unsigned value,
      input longint unsigned mask
  );
  localparam PART = WIDTH / PARTS;
  localparam COUNT = (WIDTH + 63) / 64;
  chandle memory;
  initial memory = lpu_memory_open($sformatf("%m"), COUNT, DEPTH);

  wire [64*COUNT-1:0] value, mask;
  assign value[WIDTH-1:0] = w_data;
  genvar p;
  generate
    for (p = 0; p < PARTS; p = p + 1) begin : part
      assign mask[p*PART+:PART] = {PART{w_en[p]}};
    end
    if (64 * COUNT > WIDTH) begin : rest
      assign value[64*COUNT-1:WIDTH] = 0;
      assign mask[64*COUNT-1:WIDTH] = 0;
    end
  endgenerate

  reg [64*COUNT-1:0] word;
  initial word = 0;
  integer i;
  // One process: what is read is read before it is written.
  always @(posedge clk) begin
    if (r_en) for (i = 0; i < COUNT; i = i + 1) word[64*i+:64] <= lpu_memory_get(memory, 32'(r_addr), i);
    if (w_en != 0)
      for (i = 0; i < COUNT; i = i + 1)
        if (mask[64*i+:64] != 0) lpu_memory_put(memory, 32'(w_addr), i, value[64*i+:64], mask[64*i+:64]);
  end
  generate
    if (LATENCY == 2) begin : registered
      reg [WIDTH-1:0] out;
      initial out = 0;
      always @(posedge clk) out <= word[WIDTH-1:0];
      assign r_data = out;
    end else begin : direct
      assign r_data = word[WIDTH-1:0];
    end
  endgenerate
`else
  lpu_bank #(
      .WIDTH(WIDTH),
      .DEPTH(DEPTH),
      .ABITS(ABITS),
      .PARTS(PARTS),
      .LATENCY(LATENCY)
  ) words (
      .clk(clk),
      .r_en(r_en),
      .r_addr(r_addr),
      .r_data(r_data),
      .w_en(w_en),
      .w_addr(w_addr),
      .w_data(w_data)
  );
`endif
endmodule
