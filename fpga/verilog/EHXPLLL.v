// Simulation model of the ECP5's PLL primitive, for designs that use CLKOP alone with feedback from CLKOP.
//
// Written from the vendor's usage guide (FPGA-TN-02200, "ECP5 and ECP5-5G sysCLOCK PLL/DLL Design and Usage Guide":
// divider equations, ports and parameters) and the limits of the family data sheet (FPGA-DS-02012). CLKOP has
// CLKFB_DIV periods in CLKI_DIV periods of CLKI, as measured, and rises with CLKI: the feedback takes out any
// phase. What is not modelled ends the simulation. Needs delays: Icarus, or Verilator with --timing.
`timescale 1ps / 1ps
module EHXPLLL #(
    parameter integer CLKI_DIV = 1,
    parameter integer CLKFB_DIV = 1,
    parameter integer CLKOP_DIV = 8,
    parameter integer CLKOP_CPHASE = 0,
    parameter integer CLKOP_FPHASE = 0,
    parameter CLKOP_ENABLE = "ENABLED",
    parameter CLKOS_ENABLE = "DISABLED",
    parameter CLKOS2_ENABLE = "DISABLED",
    parameter CLKOS3_ENABLE = "DISABLED",
    parameter OUTDIVIDER_MUXA = "DIVA",
    parameter OUTDIVIDER_MUXB = "DIVB",
    parameter OUTDIVIDER_MUXC = "DIVC",
    parameter OUTDIVIDER_MUXD = "DIVD",
    parameter FEEDBK_PATH = "CLKOP",
    parameter PLLRST_ENA = "DISABLED",
    parameter STDBY_ENABLE = "DISABLED",
    parameter DPHASE_SOURCE = "DISABLED",
    parameter INTFB_WAKE = "DISABLED"
) (
    input wire CLKI,
    input wire CLKFB,
    input wire RST,
    input wire STDBY,
    input wire PLLWAKESYNC,
    input wire PHASESEL0,
    input wire PHASESEL1,
    input wire PHASEDIR,
    input wire PHASESTEP,
    input wire PHASELOADREG,
    input wire ENCLKOP,
    output reg CLKOP,
    output reg LOCK,
    output wire CLKINTFB
);
  localparam integer STEADY = 8;  // equal periods of CLKI before the output starts
  localparam integer SETTLE = 32;  // and those until LOCK; the real one takes up to 15 ms

  assign CLKINTFB = 1'b0;

  realtime last, period, began;
  integer steady, edges, k;
  reg running;
  reg reference;  // the phase detector's input: CLKI divided by CLKI_DIV

  initial begin
    CLKOP = 1'b0;
    LOCK = 1'b0;
    reference = 1'b0;
    running = 1'b0;
    last = 0;
    period = 0;
    began = 0;
    steady = 0;
    edges = 0;
    if (FEEDBK_PATH != "CLKOP" || CLKOP_ENABLE != "ENABLED" || PLLRST_ENA != "DISABLED" || STDBY_ENABLE != "DISABLED"
        || DPHASE_SOURCE != "DISABLED" || INTFB_WAKE != "DISABLED" || OUTDIVIDER_MUXA != "DIVA"
        || CLKOS_ENABLE != "DISABLED" || CLKOS2_ENABLE != "DISABLED" || CLKOS3_ENABLE != "DISABLED")
      $fatal(1, "EHXPLLL: a mode that this model does not have");
    if (CLKI_DIV < 1 || CLKI_DIV > 128 || CLKFB_DIV < 1 || CLKFB_DIV > 128 || CLKOP_DIV < 1 || CLKOP_DIV > 128)
      $fatal(1, "EHXPLLL: a divider is outside 1..128");
  end

  always @(posedge CLKI) begin
    reference = 1'b0;
    if (last != 0) begin
      if ($realtime - last > period * 0.99 && $realtime - last < period * 1.01) steady = steady + 1;
      else begin
        steady = 0;
        running = 1'b0;
        LOCK = 1'b0;
      end
      period = $realtime - last;
    end
    last = $realtime;
    if (steady == STEADY && !running) begin
      // Periods in ps: 400..800 MHz are 2500..1250, 10..400 MHz are 100000..2500.
      if (period * CLKI_DIV > 100000.5 || period * CLKI_DIV < 2499.5)
        $fatal(1, "EHXPLLL: phase detector at %f MHz, outside 10..400", 1.0e6 / (period * CLKI_DIV));
      if (period * CLKI_DIV / (CLKFB_DIV * CLKOP_DIV) > 2500.5 || period * CLKI_DIV / (CLKFB_DIV * CLKOP_DIV) < 1249.5)
        $fatal(1, "EHXPLLL: VCO at %f MHz, outside 400..800", 1.0e6 * CLKFB_DIV * CLKOP_DIV / (period * CLKI_DIV));
      running = 1'b1;
      edges = 0;
    end
    if (running) begin
      if (edges == 0) reference = 1'b1;
      edges = (edges + 1) % CLKI_DIV;
      if (steady == STEADY + SETTLE) begin
        if (CLKFB !== CLKOP) $fatal(1, "EHXPLLL: CLKFB is not CLKOP");
        LOCK = 1'b1;
      end
    end
  end

  // Edges at whole picoseconds nearest to their place, counted from the reference's edge: no error adds up.
  always @(posedge reference) begin
    began = $realtime;
    for (k = 0; k < CLKFB_DIV; k = k + 1) begin
      if (k != 0) #(began + period * CLKI_DIV * k / CLKFB_DIV - $realtime);
      CLKOP = 1'b1;
      #(began + period * CLKI_DIV * (2 * k + 1) / (2 * CLKFB_DIV) - $realtime);
      CLKOP = 1'b0;
    end
  end
endmodule
