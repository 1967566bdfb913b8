// A parity as exclusive ors of two bits, for yosys's techmap: z3 cancels what is in such sums twice before it begins to
// search, which it does not where a parity is one cell.
(* techmap_celltype = "$reduce_xor" *)
module parity_as_chain (A, Y);
  parameter A_SIGNED = 0;
  parameter A_WIDTH = 1;
  parameter Y_WIDTH = 1;
  input [A_WIDTH-1:0] A;
  output [Y_WIDTH-1:0] Y;
  wire [A_WIDTH-1:0] sum;
  assign sum[0] = A[0];
  genvar i;
  generate
    for (i = 1; i < A_WIDTH; i = i + 1) begin : next
      assign sum[i] = sum[i-1] ^ A[i];
    end
  endgenerate
  assign Y = sum[A_WIDTH-1];
endmodule
