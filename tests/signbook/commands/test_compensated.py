"""Methods that compensate by their names, and options that do not fit."""

import pytest
from torch import nn

import rescomp
import vq
from signbook.commands.compensated import compensated_of, method_named
from vq.errors import ConfigError
from vq.recipe.selection import select

SHARES = dict.fromkeys(("alpha", "alpha2", "beta", "mode"))


def read(method, fitting=None, **options):
    given = {"importance": None, "norms": True, "tune": None, "epochs": None, "look_ahead": 0}
    fitting = fitting or rescomp.Fitting()
    given |= {"data": True} | options
    return compensated_of(method, SHARES, rescomp.Settings(), fitting, **given)


def test_options_are_read():
    found = read("gptq-ssvq", tune="blocks", epochs=3)
    assert (found.solver, found.codebooks, found.method) == ("gptq", "ssvq", rescomp.GPTQ())
    assert found.needs_data and found.tune.blocks().epochs == 3
    assert not read("rtn").needs_data and read("gptq-r").codebooks is None
    with pytest.raises(ConfigError, match=r"^--importance must be 'gradients', not 'inputs'"):
        read("gptq", importance="inputs")


def test_options_of_codebooks_need_codebooks():
    network = nn.Sequential(nn.Linear(64, 64))
    plain, coded = (
        select(network, vq.Recipe({"*": kind})).layers
        for kind in (vq.Int4(), vq.VQ(d=2, k=16, scale="output"))
    )
    for one in (read("gptq", rescomp.Fitting(em=2)), read("gptq", importance="gradients")):
        one.check(coded)
        with pytest.raises(ConfigError, match=r"^--sweeps, --restarts, --em, --again and --import"):
            one.check(plain)
    read("gptq").check(plain)


@pytest.mark.parametrize(
    ("name", "options", "method"),
    [
        ("rtn", {}, rescomp.RTN()),
        ("gptq", {}, rescomp.GPTQ()),
        ("gptaq", {"alpha": 1.0}, rescomp.GPTAQ(1.0)),
        ("gptq-r", {"alpha2": 0.1, "mode": "org"}, rescomp.GPTQR(0.1, "org")),
        ("gptaq-r", {"alpha": 0.5}, rescomp.GPTAQR(alpha=0.5)),
        ("qep", {"beta": 0.5}, rescomp.QEP(0.5)),
        ("exa", {}, rescomp.QEP()),
        ("foem", {}, rescomp.FOEM()),
    ],
)
def test_methods_have_names(name, options, method):
    everything = dict.fromkeys(("alpha", "alpha2", "beta", "mode"))
    assert method_named(name, **{**everything, **options}) == method


def test_names_and_options_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"must be one of rtn, .*, not 'gptag'.*'gptaq'"):
        method_named("gptag")
    with pytest.raises(ConfigError, match=r"^--alpha must .*; gptq has no such settings$"):
        method_named("gptq", alpha=1.0)
    with pytest.raises(ConfigError, match=r"^--beta must come with .*; gptaq has only alpha$"):
        method_named("gptaq", beta=1.0)
