"""The update rules, one class a formula, and their names."""

from dataclasses import fields
from typing import Any

from steepest.optim.errors import UserError, did_you_mean
from steepest.optim.registry import Registry
from steepest.optim.rule import Rule
from steepest.optim.rules.adabelief import AdaBelief
from steepest.optim.rules.adafactor import Adafactor, AdafactorBigVision, AdafactorOptax, AdafactorTorch
from steepest.optim.rules.adagrad import Adadelta, Adagrad, AdagradTF
from steepest.optim.rules.adam import Adam, AdamC, AdamInside, AdamTF, AdamW
from steepest.optim.rules.adam_mini import AdamMini
from steepest.optim.rules.adamax import Adamax, AdamaxTF
from steepest.optim.rules.adan import Adan, AdanW
from steepest.optim.rules.ademamix import AdEMAMix
from steepest.optim.rules.adopt import ADOPT
from steepest.optim.rules.amsgrad import AMSGrad, AMSGradHat, AMSGradTF, AMSGradW
from steepest.optim.rules.apollo import Apollo
from steepest.optim.rules.asgd import ASGD
from steepest.optim.rules.came import CAME
from steepest.optim.rules.curvature import AdaHessian, SophiaG, SophiaH
from steepest.optim.rules.dion import Dion
from steepest.optim.rules.dog import DoG, DoWG, LDoG
from steepest.optim.rules.ftrl import FTRL
from steepest.optim.rules.galore import Fira, GaLore
from steepest.optim.rules.hypergradient import HypergradientAdam, HypergradientSGD
from steepest.optim.rules.kl_shampoo import KLShampoo
from steepest.optim.rules.kron import Kron
from steepest.optim.rules.laprop import LaProp
from steepest.optim.rules.lars import LAMB, LARS
from steepest.optim.rules.lbfgs import LBFGS
from steepest.optim.rules.lion import Lion
from steepest.optim.rules.madgrad import MADGRAD
from steepest.optim.rules.mars import MARS, MARSExact
from steepest.optim.rules.muon import Muon, MuonMatched, MuonSpectral
from steepest.optim.rules.nadam import NAdam, NAdamSimple, NAdamTF, NAdamW, NAdamWSimple
from steepest.optim.rules.normuon import AdaMuon, NorMuon
from steepest.optim.rules.novograd import NovoGrad
from steepest.optim.rules.parameter_free import DAdaptAdam, Prodigy
from steepest.optim.rules.qhadam import QHAdam
from steepest.optim.rules.radam import RAdam, RAdamHat, RAdamW
from steepest.optim.rules.rmsprop import (
    RMSprop,
    RMSpropCentered,
    RMSpropCenteredMomentum,
    RMSpropMomentum,
    RMSpropTF,
    RMSpropTFCentered,
)
from steepest.optim.rules.rprop import Rprop
from steepest.optim.rules.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from steepest.optim.rules.sgd import SGD, Momentum, MomentumTF, Nesterov, NesterovTF
from steepest.optim.rules.shampoo import Shampoo
from steepest.optim.rules.sign import SignSGD, Signum
from steepest.optim.rules.sm3 import SM3
from steepest.optim.rules.soap import SOAP
from steepest.optim.rules.spectral import SpectralDescent
from steepest.optim.rules.stable import StableAdamW
from steepest.optim.rules.yogi import Yogi
from steepest.optim.wrappers import layers, within

RULES: tuple[type[Rule], ...] = (
    SGD,
    Momentum,
    Nesterov,
    MomentumTF,
    NesterovTF,
    ASGD,
    Adagrad,
    AdagradTF,
    Adadelta,
    RMSprop,
    RMSpropMomentum,
    RMSpropCentered,
    RMSpropCenteredMomentum,
    RMSpropTF,
    RMSpropTFCentered,
    Rprop,
    FTRL,
    SignSGD,
    Signum,
    Lion,
    Adam,
    AdamW,
    AdamC,
    AdamTF,
    AdamInside,
    AMSGrad,
    AMSGradW,
    AMSGradTF,
    AMSGradHat,
    Adamax,
    AdamaxTF,
    NAdam,
    NAdamW,
    NAdamTF,
    NAdamSimple,
    NAdamWSimple,
    RAdam,
    RAdamW,
    RAdamHat,
    AdaBelief,
    Yogi,
    LaProp,
    Adan,
    AdanW,
    ADOPT,
    AdEMAMix,
    QHAdam,
    MARS,
    MARSExact,
    StableAdamW,
    NovoGrad,
    MADGRAD,
    SophiaG,
    SophiaH,
    AdaHessian,
    LARS,
    LAMB,
    ScheduleFreeSGD,
    ScheduleFreeAdamW,
    DAdaptAdam,
    Prodigy,
    DoG,
    LDoG,
    DoWG,
    HypergradientSGD,
    HypergradientAdam,
    Adafactor,
    AdafactorTorch,
    AdafactorBigVision,
    AdafactorOptax,
    CAME,
    SM3,
    AdamMini,
    Muon,
    MuonMatched,
    MuonSpectral,
    NorMuon,
    AdaMuon,
    SpectralDescent,
    Dion,
    Shampoo,
    SOAP,
    KLShampoo,
    Kron,
    GaLore,
    Fira,
    Apollo,
    LBFGS,
)


OTHERS: Registry[Any] = Registry("update rule", "steepest.rules", {})
"""Rules of other packages by name, from their entry points of the group "steepest.rules"."""

_NAMES: dict[type[Rule], str] = {}
"""The names of those that were asked for."""


def registry() -> dict[str, type[Rule]]:
    """Every rule by its name in recipes and on the command line: that of its class, in lower case."""
    return {rule.__name__.lower(): rule for rule in RULES}


def named(name: str, **hyper: Any) -> Rule:
    """The rule of that name, with these hyperparameters and its own defaults for the rest.

    "lookahead+cautious+lion": within the wrappers named before it, whose hyperparameters lie beside it."""
    *wrappers, plain = map(_plain, name.split("+"))
    kind = within(_found(name, plain), tuple(wrappers))
    known = [field.name for field in fields(kind)]
    for word in hyper:
        if word not in known:
            raise UserError(f"{kind.__name__} has no hyperparameter {word!r}.{did_you_mean(word, known)}")
    return kind(**hyper)


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def _found(name: str, plain: str) -> type[Rule]:
    """The class of a name without wrappers; other packages are looked through where none here bears it."""
    known = registry()
    if plain in known:
        return known[plain]
    others = {_plain(one): one for one in OTHERS.names()}
    if plain not in others:
        raise UserError(f"There is no update rule {name!r}.{did_you_mean(plain, {*known, *others})}")
    kind = OTHERS[others[plain]]
    if not (isinstance(kind, type) and issubclass(kind, Rule)):
        raise UserError(
            f"The update rule {others[plain]!r} of another package must be a class of rules, got {kind!r}. "
            "Mend or remove the package that registers it."
        )
    _NAMES[kind] = plain
    return kind


def knows(name: str) -> bool:
    """Whether `named` finds a rule by that name, wrappers before it left aside."""
    plain = _plain(name.rpartition("+")[2])
    return plain in registry() or plain in map(_plain, OTHERS.names())


def repeats(rule: Rule) -> bool:
    """Whether its name brings back the class of a rule; a person's own may bear the name of another."""
    kind, _ = layers(type(rule))
    return kind in _NAMES or registry().get(kind.__name__.lower()) is kind


def chosen(rule: Any) -> Rule:
    """The rule that is meant by one, or by the name of one."""
    if isinstance(rule, Rule):
        return rule
    if isinstance(rule, str):
        return named(rule)
    if isinstance(rule, type) and issubclass(rule, Rule):
        raise UserError(f"{rule.__name__} is a class of rules. Make one of it: {rule.__name__}(lr=…).")
    raise UserError(
        f"A rule must be one, such as rules.AdamW(lr=1e-3), or a name, such as 'adamw'; got {rule!r}."
    )


def name_of(rule: Rule) -> str:
    """The name by which `named` finds the class of a rule."""
    kind, wrappers = layers(type(rule))
    return "+".join((*wrappers, _NAMES.get(kind, kind.__name__.lower())))
