"""VXM: dequantiser, vector ALUs, scalar unit and top-k unit. :class:`hdl.vxm.vxm.Vxm` wires them."""
