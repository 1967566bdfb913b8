// Simulation model of the ECP5's block RAM primitive DP16KD, in the modes that fpga/ecp5.py uses.
//
// Written from the vendor's usage guide (FPGA-TN-02204, "ECP5 and ECP5-5G Memory Usage Guide"); its heading is named
// where a behaviour is relied on. Modelled: port A reads or writes, port B reads, 9 or 18 bits each; or port A writes
// and port B reads 36 bits; write mode NORMAL; output registers. Anything else ends the simulation.
//
// A word that is read while a byte of it is written is unknown: X where a simulator has that, else the old word
// inverted. So is a port's word behind a write of its own, which leaves it as it was in the hardware.
//
// With the plusarg +bram_init=FOLDER it starts with the 2048 values of nine bits of FOLDER/WID.hex, where there is such
// a file, and not with its INITVALs: as a bitstream's text has them, under the number that nextpnr gave the block.
/* verilator lint_off DECLFILENAME */
/* verilator lint_off UNUSEDPARAM */
/* verilator lint_off UNUSEDSIGNAL */
module DP16KD #(
    parameter integer DATA_WIDTH_A = 18,
    parameter integer DATA_WIDTH_B = 18,
    parameter REGMODE_A = "NOREG",
    parameter REGMODE_B = "NOREG",
    parameter RESETMODE = "SYNC",
    parameter ASYNC_RESET_RELEASE = "SYNC",
    parameter CSDECODE_A = "0b000",
    parameter CSDECODE_B = "0b000",
    parameter WRITEMODE_A = "NORMAL",
    parameter WRITEMODE_B = "NORMAL",
    parameter CLKAMUX = "CLKA",
    parameter CLKBMUX = "CLKB",
    parameter GSR = "ENABLED",
    parameter INIT_DATA = "STATIC",
    parameter integer WID = 0,
    parameter [319:0] INITVAL_00 = 320'd0, parameter [319:0] INITVAL_01 = 320'd0,
    parameter [319:0] INITVAL_02 = 320'd0, parameter [319:0] INITVAL_03 = 320'd0,
    parameter [319:0] INITVAL_04 = 320'd0, parameter [319:0] INITVAL_05 = 320'd0,
    parameter [319:0] INITVAL_06 = 320'd0, parameter [319:0] INITVAL_07 = 320'd0,
    parameter [319:0] INITVAL_08 = 320'd0, parameter [319:0] INITVAL_09 = 320'd0,
    parameter [319:0] INITVAL_0A = 320'd0, parameter [319:0] INITVAL_0B = 320'd0,
    parameter [319:0] INITVAL_0C = 320'd0, parameter [319:0] INITVAL_0D = 320'd0,
    parameter [319:0] INITVAL_0E = 320'd0, parameter [319:0] INITVAL_0F = 320'd0,
    parameter [319:0] INITVAL_10 = 320'd0, parameter [319:0] INITVAL_11 = 320'd0,
    parameter [319:0] INITVAL_12 = 320'd0, parameter [319:0] INITVAL_13 = 320'd0,
    parameter [319:0] INITVAL_14 = 320'd0, parameter [319:0] INITVAL_15 = 320'd0,
    parameter [319:0] INITVAL_16 = 320'd0, parameter [319:0] INITVAL_17 = 320'd0,
    parameter [319:0] INITVAL_18 = 320'd0, parameter [319:0] INITVAL_19 = 320'd0,
    parameter [319:0] INITVAL_1A = 320'd0, parameter [319:0] INITVAL_1B = 320'd0,
    parameter [319:0] INITVAL_1C = 320'd0, parameter [319:0] INITVAL_1D = 320'd0,
    parameter [319:0] INITVAL_1E = 320'd0, parameter [319:0] INITVAL_1F = 320'd0,
    parameter [319:0] INITVAL_20 = 320'd0, parameter [319:0] INITVAL_21 = 320'd0,
    parameter [319:0] INITVAL_22 = 320'd0, parameter [319:0] INITVAL_23 = 320'd0,
    parameter [319:0] INITVAL_24 = 320'd0, parameter [319:0] INITVAL_25 = 320'd0,
    parameter [319:0] INITVAL_26 = 320'd0, parameter [319:0] INITVAL_27 = 320'd0,
    parameter [319:0] INITVAL_28 = 320'd0, parameter [319:0] INITVAL_29 = 320'd0,
    parameter [319:0] INITVAL_2A = 320'd0, parameter [319:0] INITVAL_2B = 320'd0,
    parameter [319:0] INITVAL_2C = 320'd0, parameter [319:0] INITVAL_2D = 320'd0,
    parameter [319:0] INITVAL_2E = 320'd0, parameter [319:0] INITVAL_2F = 320'd0,
    parameter [319:0] INITVAL_30 = 320'd0, parameter [319:0] INITVAL_31 = 320'd0,
    parameter [319:0] INITVAL_32 = 320'd0, parameter [319:0] INITVAL_33 = 320'd0,
    parameter [319:0] INITVAL_34 = 320'd0, parameter [319:0] INITVAL_35 = 320'd0,
    parameter [319:0] INITVAL_36 = 320'd0, parameter [319:0] INITVAL_37 = 320'd0,
    parameter [319:0] INITVAL_38 = 320'd0, parameter [319:0] INITVAL_39 = 320'd0,
    parameter [319:0] INITVAL_3A = 320'd0, parameter [319:0] INITVAL_3B = 320'd0,
    parameter [319:0] INITVAL_3C = 320'd0, parameter [319:0] INITVAL_3D = 320'd0,
    parameter [319:0] INITVAL_3E = 320'd0, parameter [319:0] INITVAL_3F = 320'd0
) (
    input wire
      DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1,
      DIA0, ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0, CLKA, CEA, OCEA,
      WEA, RSTA, CSA2, CSA1, CSA0,
    input wire
      DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1,
      DIB0, ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0, CLKB, CEB, OCEB,
      WEB, RSTB, CSB2, CSB1, CSB0,
    output wire
      DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1,
      DOA0, DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2,
      DOB1, DOB0
);
  /* verilator no_inline_module */
  localparam [64*320-1:0] INIT = {
      INITVAL_3F, INITVAL_3E, INITVAL_3D, INITVAL_3C, INITVAL_3B, INITVAL_3A, INITVAL_39, INITVAL_38, INITVAL_37,
      INITVAL_36, INITVAL_35, INITVAL_34, INITVAL_33, INITVAL_32, INITVAL_31, INITVAL_30, INITVAL_2F, INITVAL_2E,
      INITVAL_2D, INITVAL_2C, INITVAL_2B, INITVAL_2A, INITVAL_29, INITVAL_28, INITVAL_27, INITVAL_26, INITVAL_25,
      INITVAL_24, INITVAL_23, INITVAL_22, INITVAL_21, INITVAL_20, INITVAL_1F, INITVAL_1E, INITVAL_1D, INITVAL_1C,
      INITVAL_1B, INITVAL_1A, INITVAL_19, INITVAL_18, INITVAL_17, INITVAL_16, INITVAL_15, INITVAL_14, INITVAL_13,
      INITVAL_12, INITVAL_11, INITVAL_10, INITVAL_0F, INITVAL_0E, INITVAL_0D, INITVAL_0C, INITVAL_0B, INITVAL_0A,
      INITVAL_09, INITVAL_08, INITVAL_07, INITVAL_06, INITVAL_05, INITVAL_04, INITVAL_03, INITVAL_02, INITVAL_01,
      INITVAL_00
  };
  localparam WIDE = DATA_WIDTH_A == 36;
  localparam BYTES_A = DATA_WIDTH_A / 9;
  localparam BYTES_B = DATA_WIDTH_B / 9;

  wire [17:0] dib = {
      DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5, DIB4, DIB3, DIB2, DIB1,
      DIB0
  };
  wire [17:0] dia = {
      DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5, DIA4, DIA3, DIA2, DIA1,
      DIA0
  };
  wire [13:0] ada = {
      ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0
  };
  wire [13:0] adb = {
      ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0
  };
  wire [35:0] data = {dib, dia};

  // As bytes of nine bits, each with its own write enable ("Byte Enable": a byte is nine bits where words have 18 or
  // 36). Address pins count single bits of 16384: a byte's address begins at pin 3, that of two at pin 4, that of
  // four at pin 5, and pins 0 and 1, or 0 to 3, are then the byte enables ("Address port width").
  reg [8:0] mem[0:2047];
  reg [35:0] word_a, word_b, out_a, out_b;

  integer i, file;
  reg [8*1024-1:0] folder, path;
  initial begin
    // Power-on contents (FPGA-TN-02204, "Initializing Memory"): INITVAL_00 to 3F follow each other, 320 bits each; of
    // every 20 bits the low 18 are memory, in the order of ascending addresses.
    for (i = 0; i < 1024; i = i + 1) begin
      mem[2*i] = INIT[20*i+:9];
      mem[2*i+1] = INIT[20*i+9+:9];
    end
    if ($value$plusargs("bram_init=%s", folder) != 0) begin
      $sformat(path, "%0s/%0d.hex", folder, WID);
      file = $fopen(path, "r");
      if (file != 0) begin
        $fclose(file);
        $readmemh(path, mem);
      end
    end
    word_a = 36'd0;
    word_b = 36'd0;
    out_a = 36'd0;
    out_b = 36'd0;
    if (!(DATA_WIDTH_A == 9 || DATA_WIDTH_A == 18 || DATA_WIDTH_A == 36)
        || !(DATA_WIDTH_B == 9 || DATA_WIDTH_B == 18 || DATA_WIDTH_B == 36)
        || (DATA_WIDTH_A == 36) != (DATA_WIDTH_B == 36))
      $fatal(1, "DP16KD: DATA_WIDTH %0d, %0d is not modelled", DATA_WIDTH_A, DATA_WIDTH_B);
    if ((REGMODE_A != "NOREG" && REGMODE_A != "OUTREG") || (REGMODE_B != "NOREG" && REGMODE_B != "OUTREG"))
      $fatal(1, "DP16KD: REGMODE %s, %s is not modelled", REGMODE_A, REGMODE_B);
    // The halves of 36 bits leave through two ports, whose registers are chosen apart.
    if (WIDE && REGMODE_A != REGMODE_B)
      $fatal(1, "DP16KD: half of the word is registered: REGMODE %s, %s", REGMODE_A, REGMODE_B);
    if (RESETMODE != "SYNC" || ASYNC_RESET_RELEASE != "SYNC" || WRITEMODE_A != "NORMAL" || WRITEMODE_B != "NORMAL"
        || CSDECODE_A != "0b000" || CSDECODE_B != "0b000" || CLKAMUX != "CLKA" || CLKBMUX != "CLKB"
        || GSR != "DISABLED" || INIT_DATA != "STATIC")
      $fatal(1, "DP16KD: a mode that this model does not have");
  end

  // Pins that must be tied to ground, and (CEA in the wide mode) to one.
  wire loose = {WEB, CSA2, CSA1, CSA0, CSB2, CSB1, CSB0} !== 7'd0 || (WIDE && (ada[4] !== 1'b0 || CEA !== 1'b1));
  always @(posedge CLKA or posedge CLKB)
    if (loose) $fatal(1, "DP16KD: a pin is not tied as this model needs it");

  wire [10:0] at_a = WIDE ? {ada[13:5], 2'd0} : BYTES_A == 2 ? {ada[13:4], 1'd0} : ada[13:3];
  wire [10:0] at_b = WIDE ? {adb[13:5], 2'd0} : BYTES_B == 2 ? {adb[13:4], 1'd0} : adb[13:3];
  wire [3:0] enable = !(CEA && WEA) ? 4'd0 : WIDE ? ada[3:0] : BYTES_A == 2 ? {2'd0, ada[1:0]} : 4'd1;
  wire [10:0] behind_b = at_b - at_a;  // bytes
  wire [10:0] behind_a = at_a - at_b;
  wire clash = enable != 4'd0 && (behind_b < BYTES_A || behind_a < BYTES_B);
  wire [35:0] read_a = {18'd0, mem[at_a|11'd1], mem[at_a]};
  wire [35:0] read_b = {mem[at_b|11'd3], mem[at_b|11'd2], BYTES_B == 1 ? 9'd0 : mem[at_b|11'd1], mem[at_b]};

  always @(posedge CLKA) begin
    if (enable[0]) mem[at_a] <= data[8:0];
    if (enable[1]) mem[at_a|11'd1] <= data[17:9];
    if (enable[2]) mem[at_a|11'd2] <= data[26:18];
    if (enable[3]) mem[at_a|11'd3] <= data[35:27];
  end

  // CE holds the array's output, OCE the register behind it, each alone ("Output register", port descriptions).
`ifdef VERILATOR
  wire [35:0] unknown_a = ~read_a;
  wire [35:0] unknown_b = ~read_b;
`else
  wire [35:0] unknown_a = 36'bx;
  wire [35:0] unknown_b = 36'bx;
`endif
  always @(posedge CLKA)
    if (RSTA) word_a <= 36'd0;
    else if (CEA) word_a <= WEA ? unknown_a : read_a;
  always @(posedge CLKB)
    if (RSTB) word_b <= 36'd0;
    else if (CEB) word_b <= clash ? unknown_b : read_b;
  always @(posedge CLKA) if (OCEA) out_a <= RSTA ? 36'd0 : word_a;
  always @(posedge CLKB) if (OCEB) out_b <= RSTB ? 36'd0 : word_b;

  // The low half of 36 bits comes out of port A, the high half out of port B.
  wire [35:0] data_b = REGMODE_B == "OUTREG" ? out_b : word_b;
  wire [17:0] doa = WIDE ? data_b[17:0] : REGMODE_A == "OUTREG" ? out_a[17:0] : word_a[17:0];
  wire [17:0] dob = WIDE ? data_b[35:18] : data_b[17:0];
  assign {
      DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5, DOA4, DOA3, DOA2, DOA1,
      DOA0
  } = doa;
  assign {
      DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5, DOB4, DOB3, DOB2, DOB1,
      DOB0
  } = dob;
endmodule

// What an instance need not connect.
`ifdef VERILATOR
`verilator_config
lint_off -rule PINMISSING -file "*" -match "*missing pin: 'DIA*'*"
lint_off -rule PINMISSING -file "*" -match "*missing pin: 'DIB*'*"
lint_off -rule PINMISSING -file "*" -match "*missing pin: 'DOA*'*"
lint_off -rule PINMISSING -file "*" -match "*missing pin: 'DOB*'*"
`verilog
`endif
