"""Tables in a terminal."""

from signbook.commands.printing import print_table


def test_narrow_tables_cut_nothing(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "24")
    name = "model.layers.0.self_attn.q_proj"
    print_table("layers", ("name", "bits"), [{"name": name, "bits": 3}])
    lines = capsys.readouterr().out.splitlines()
    assert name in "".join(x[1:].split("│")[0].strip() for x in lines if x.startswith("│"))
