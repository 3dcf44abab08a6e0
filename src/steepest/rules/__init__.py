"""The update rules, one class a formula, and their names."""

from dataclasses import fields
from typing import Any

from steepest.errors import UserError, did_you_mean
from steepest.rule import Rule
from steepest.rules.adabelief import AdaBelief
from steepest.rules.adafactor import Adafactor, AdafactorBigVision, AdafactorOptax, AdafactorTorch
from steepest.rules.adagrad import Adadelta, Adagrad, AdagradTF
from steepest.rules.adam import Adam, AdamC, AdamInside, AdamTF, AdamW
from steepest.rules.adam_mini import AdamMini
from steepest.rules.adamax import Adamax, AdamaxTF
from steepest.rules.adan import Adan, AdanW
from steepest.rules.ademamix import AdEMAMix
from steepest.rules.adopt import ADOPT
from steepest.rules.amsgrad import AMSGrad, AMSGradHat, AMSGradTF, AMSGradW
from steepest.rules.apollo import Apollo
from steepest.rules.asgd import ASGD
from steepest.rules.came import CAME
from steepest.rules.curvature import AdaHessian, SophiaG, SophiaH
from steepest.rules.dion import Dion
from steepest.rules.dog import DoG, DoWG, LDoG
from steepest.rules.ftrl import FTRL
from steepest.rules.galore import Fira, GaLore
from steepest.rules.hypergradient import HypergradientAdam, HypergradientSGD
from steepest.rules.kl_shampoo import KLShampoo
from steepest.rules.kron import Kron
from steepest.rules.laprop import LaProp
from steepest.rules.lars import LAMB, LARS
from steepest.rules.lbfgs import LBFGS
from steepest.rules.lion import Lion
from steepest.rules.madgrad import MADGRAD
from steepest.rules.mars import MARS, MARSExact
from steepest.rules.muon import Muon, MuonMatched, MuonSpectral
from steepest.rules.nadam import NAdam, NAdamSimple, NAdamTF, NAdamW, NAdamWSimple
from steepest.rules.normuon import AdaMuon, NorMuon
from steepest.rules.novograd import NovoGrad
from steepest.rules.parameter_free import DAdaptAdam, Prodigy
from steepest.rules.qhadam import QHAdam
from steepest.rules.radam import RAdam, RAdamHat, RAdamW
from steepest.rules.rmsprop import (
    RMSprop,
    RMSpropCentered,
    RMSpropCenteredMomentum,
    RMSpropMomentum,
    RMSpropTF,
    RMSpropTFCentered,
)
from steepest.rules.rprop import Rprop
from steepest.rules.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from steepest.rules.sgd import SGD, Momentum, MomentumTF, Nesterov, NesterovTF
from steepest.rules.shampoo import Shampoo
from steepest.rules.sign import SignSGD, Signum
from steepest.rules.sm3 import SM3
from steepest.rules.soap import SOAP
from steepest.rules.spectral import SpectralDescent
from steepest.rules.stable import StableAdamW
from steepest.rules.yogi import Yogi
from steepest.wrap import layers, within

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


def registry() -> dict[str, type[Rule]]:
    """Every rule by its name in recipes and on the command line: that of its class, in lower case."""
    return {rule.__name__.lower(): rule for rule in RULES}


def named(name: str, **hyper: Any) -> Rule:
    """The rule of that name, with these hyperparameters and its own defaults for the rest.

    "lookahead+cautious+lion": within the wrappers named before it, whose hyperparameters lie beside it."""
    *wrappers, plain = (word.lower().replace("_", "").replace("-", "") for word in name.split("+"))
    rules = registry()
    if plain not in rules:
        raise UserError(f"There is no update rule {name!r}.{did_you_mean(plain, rules)}")
    kind = within(rules[plain], tuple(wrappers))
    known = [field.name for field in fields(kind)]
    for word in hyper:
        if word not in known:
            raise UserError(f"{kind.__name__} has no hyperparameter {word!r}.{did_you_mean(word, known)}")
    return kind(**hyper)


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
    return "+".join((*wrappers, kind.__name__.lower()))
