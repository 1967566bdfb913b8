// Simulation model of 16 x 1 bit of LUT RAM: half of a slice in mode DPRAM, with an edge that writes and a free read.
//
// As Yosys models the whole RAM (TRELLIS_DPR16X4 in ecp5/common_sim.vh), of which nextpnr makes four of these.
/* verilator lint_off DECLFILENAME */
module LUT_RAM #(
    parameter [15:0] INITVAL = 16'd0
) (
    input wire WCK,
    input wire WRE,
    input wire [3:0] WAD,
    input wire WD,
    input wire [3:0] RAD,
    output wire DO
);
  reg [15:0] bits;
  initial bits = INITVAL;
  always @(posedge WCK) if (WRE) bits[WAD] <= WD;
  assign DO = bits[RAD];
endmodule
