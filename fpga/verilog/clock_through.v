// The PLL of a simulation that counts clocks and has no time: CLKOP is CLKI, and locks once it has come a few times.
//
// For Verilator's harness (sim/verilator.py), in the place of EHXPLLL.v, which needs delays. Dividers are not looked at:
// one period of the simulation is one of the core's clock.
/* verilator lint_off DECLFILENAME */
/* verilator lint_off UNUSEDPARAM */
/* verilator lint_off UNUSEDSIGNAL */
module EHXPLLL #(
    parameter CLKI_DIV = 1, parameter CLKFB_DIV = 1, parameter CLKOP_DIV = 8, parameter CLKOP_CPHASE = 0,
    parameter CLKOP_FPHASE = 0, parameter CLKOP_ENABLE = "ENABLED", parameter OUTDIVIDER_MUXA = "DIVA",
    parameter OUTDIVIDER_MUXB = "DIVB", parameter OUTDIVIDER_MUXC = "DIVC", parameter OUTDIVIDER_MUXD = "DIVD",
    parameter FEEDBK_PATH = "CLKOP", parameter PLLRST_ENA = "DISABLED", parameter STDBY_ENABLE = "DISABLED",
    parameter DPHASE_SOURCE = "DISABLED", parameter INTFB_WAKE = "DISABLED"
) (
    input wire CLKI, CLKFB, RST, STDBY, PLLWAKESYNC, PHASESEL0, PHASESEL1, PHASEDIR, PHASESTEP, PHASELOADREG, ENCLKOP,
    output wire CLKOP,
    output wire LOCK,
    output wire CLKINTFB
);
  reg [3:0] clocks;
  initial clocks = 4'd0;
  always @(posedge CLKI) if (!LOCK) clocks <= clocks + 4'd1;
  assign LOCK = &clocks;
  assign CLKOP = CLKI;
  assign CLKINTFB = 1'b0;
endmodule
