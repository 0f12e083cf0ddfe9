"""A library of six cells in the Liberty format, of round numbers."""

#: abc wants three loads at least.
_AXES = 'index_1 ("0.01, 1.0"); index_2 ("0.001, 0.01, 0.1");'
_TABLE = f'(grid) {{{{ {_AXES} values ("{{0}}, {{0}}, {{0}}", "{{0}}, {{0}}, {{0}}"); }}}}'
_TIMING = """timing () {{ related_pin : "{pin}"; timing_sense : {sense};
      cell_rise {delay} cell_fall {delay} rise_transition {slope} fall_transition {slope} }}"""
#: Function, unateness, area, and delay in nanoseconds by name.
GATES = {
    "INV": ("!A", "negative_unate", 1.0, 0.125),
    "BUF": ("A", "positive_unate", 1.5, 0.25),
    "NAND2": ("!(A & B)", "negative_unate", 2.0, 0.25),
    "NOR2": ("!(A | B)", "negative_unate", 2.0, 0.25),
    "XOR2": ("(A & !B) | (!A & B)", "non_unate", 4.0, 0.5),
}
FLIP_FLOP_UM2 = 8.0
FLIP_FLOP = f"""
  cell (DFF) {{ area : {FLIP_FLOP_UM2};
    ff (IQ, IQN) {{ next_state : "D"; clocked_on : "CK"; }}
    pin (D) {{ direction : input; capacitance : 0.001; }}
    pin (CK) {{ direction : input; capacitance : 0.001; clock : true; }}
    pin (Q) {{ direction : output; function : "IQ"; }}
  }}"""


def _gate(name: str, function: str, sense: str, um2: float, delay: float) -> str:
    pins = [pin for pin in "AB" if pin in function]
    inputs = "\n".join(f"pin ({p}) {{ direction : input; capacitance : 0.001; }}" for p in pins)
    times = "\n".join(
        _TIMING.format(pin=p, sense=sense, delay=_TABLE.format(delay), slope=_TABLE.format(0.01))
        for p in pins
    )
    return f"""
  cell ({name}) {{ area : {um2};
    {inputs}
    pin (Y) {{ direction : output; function : "{function}"; max_capacitance : 10.0;
      {times} }}
  }}"""


def library(*, flip_flop: bool = True, gates: bool = True) -> str:
    """Text of the library, or of a part of it."""
    cells = [_gate(name, *facts) for name, facts in GATES.items()] if gates else []
    return f"""library ("small") {{ /* with a {{ in a comment */
  delay_model : table_lookup;
  time_unit : "1ns";
  capacitive_load_unit (1.0, pf);
  lu_table_template (grid) {{
    variable_1 : input_net_transition; variable_2 : total_output_net_capacitance;
    {_AXES} }}
  {"".join(cells)}
  {FLIP_FLOP if flip_flop else ""}
}}
"""
