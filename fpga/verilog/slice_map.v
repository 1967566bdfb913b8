// Cells of a slice, its pins and its clock buffers as nextpnr-ecp5 leaves them, mapped to expressions: for Yosys's techmap.
//
// Written from nextpnr's packer (ecp5/cells.cc, ecp5/pack.cc: which pin of a LUT4, CCU2C, PFUMX, L6MUX21 or
// TRELLIS_DPR16X4 becomes which pin here) and Yosys's models of those cells (ecp5/common_sim.vh, ccu2c_sim.vh). Yosys
// has a TRELLIS_COMB, too, but in 0.70 its carry output is declared once more inside the mode's block and drives nothing.

// Half of a slice's logic. LOGIC: a LUT, and a multiplexer of two LUTs (OFX_MUX 5: this one's output and the one's in
// the other half) or of two such multiplexers (6); fpga/routed.py sets OFX_MUX by what is connected. CCU2: one bit of a
// carry chain. DPRAM: 16 x 1 bit of RAM.
module TRELLIS_COMB (
    input A, B, C, D, M, FCI, F1, FXA, FXB, WD, WAD0, WAD1, WAD2, WAD3, WRE, WCK,
    output F, FCO, OFX
);
  parameter MODE = "LOGIC";
  parameter [15:0] INITVAL = 16'd0;
  parameter CCU2_INJECT1 = "NO";
  parameter OFX_MUX = 0;

  generate
    if (MODE == "DPRAM") begin
      // Address bits lie on the pins in this order (cells.cc, dram_to_comb).
      LUT_RAM #(.INITVAL(INITVAL)) ram (
          .WCK(WCK), .WRE(WRE), .WAD({WAD3, WAD2, WAD1, WAD0}), .WD(WD), .RAD({A, C, B, D}), .DO(F)
      );
    end else begin
      wire table4;
      \$lut #(.WIDTH(4), .LUT(INITVAL)) lut (.A({D, C, B, A}), .Y(table4));
      if (MODE == "CCU2") begin
        wire table2;
        \$lut #(.WIDTH(2), .LUT(INITVAL[3:0])) lut (.A({B, A}), .Y(table2));
        assign F = CCU2_INJECT1 == "YES" ? table4 : table4 ^ FCI;
        assign FCO = table4 ? FCI : CCU2_INJECT1 == "YES" ? 1'b0 : table2;
      end else assign F = table4;
    end
    if (OFX_MUX == 5) assign OFX = M ? F1 : F;
    if (OFX_MUX == 6) assign OFX = M ? FXB : FXA;
  endgenerate
endmodule

// The write port of LUT RAM: pins of slice C that lead to the RAM's halves (cells.cc, dram_to_ramw).
module TRELLIS_RAMW (
    input A0, B0, C0, D0, A1, B1, C1, D1, output WADO0, WADO1, WADO2, WADO3, WDO0, WDO1, WDO2, WDO3
);
  assign {WADO3, WADO2, WADO1, WADO0} = {A0, C0, B0, D0};
  assign {WDO3, WDO2, WDO1, WDO0} = {B1, D1, A1, C1};
endmodule

// A pin: an output is always driven (FPGA-TN-02032; fpga/routed.py refuses a connected T).
module TRELLIS_IO (inout B, input I, T, output O);
  parameter DIR = "INPUT";
  generate
    if (DIR == "INPUT") assign O = B;
    else assign B = I;
  endgenerate
endmodule

// The buffer of a global clock, always on (FPGA-TN-02200, DCCA; fpga/routed.py refuses a connected CE).
module DCCA (input CLKI, CE, output CLKO);
  assign CLKO = CLKI;
endmodule
