"""Every constant of the measured choice, and where it comes from: starting points, to be calibrated."""

from __future__ import annotations

# --- what a budget allows, in updates ---

SHORT = 40
"""Fewer updates than this measure nothing: the shortest comparison would be a third of them."""

SMALL = 200
"""Fewer updates than this hold no range test, whose 12 steps would be more than 5 % of them: rates of one
rule are compared alone. On the suite at a fifth of its lengths, 40 to 160 updates, the default rate of AdamW
cost a factor of 1.2 to 26 beside the best, which was 2 to 50 times higher."""

LARGEST_SHARE = 0.25
"""Of the budget, for search and its evaluations together: what `fit` promises. The stages below add up to
less; a search that a slow clock carries beyond it commits to what leads."""

SPARED = 0.03
"""Of the budget, what plans of rates leave of that for the run itself. With a candidate more in its place,
`digits` at 400 updates ended higher on test in both of two seeds (0.074 for 0.025, 0.067 for 0.052)."""

INSTANT = 1.0
"""Fewer seconds than this are used up by loading kernels and timing updates, and measure nothing."""

LONGEST = 300_000
"""Updates of a budget that shares are taken of at most: a larger one is a bound, and not what somebody means
to wait for. Candidates are compared for 9,000 updates then; the longest that were calibrated, for 1,800."""

PREFLIGHT_SHARE = 0.01
RANGE_TEST_SHARE = 0.015
"""Of the budget for each range test; what it trains is thrown away."""

SCORES_SHARE = 0.03
"""Of the budget for scores of candidates on held-out examples."""

FORWARD = 1 / 3
"""Cost of a forward pass in gradient evaluations: the backward pass takes about twice the operations."""

# --- the ladder ---

RUNGS = (0.01, 0.03)
"""Ends of the rungs as shares of the budget. Early ranks followed by a longer comparison of the best few
are as good as elaborate schedules at a tenth of the price (Egele et al. 2023, arXiv:2307.15422). On the
suite, the best rate after 3 % of a run was that of its end within a factor 2 on seven workloads of eight;
after 1.5 % it was up to 4 times too high."""

FEWEST_UPDATES = (6, 12)
"""Of the rungs, where the shares are less."""

SPRINT = (0.06, 4)
"""The one rung of a small budget: as a share of it, and at least in updates."""

CANDIDATES = (3, 8)
"""Fewest candidates that are worth successive halving, and most."""

LED = 6
"""Most candidates where one rule leads: three rates of it, one of the other, and CLIMBS."""

CLIMBS = 2
"""Candidates that are kept for rates beyond those that all begin with, if the best is an outermost one."""

LONGER = 2.0
"""Factor of the rungs where the rates of one rule are compared, which takes fewer candidates. Read off runs
of AdamW over seven rates on the suite (`calibrate`), the rate that leads after 6 % of a run costs up to 6 %
of the final loss, the one that leads after 3 % up to 14 %."""

KEPT = (0.5, 3)
"""Largest share of the candidates of a rung that goes on to the next, and how many may at least. Those that
are protected go on besides: the default, the next lower rate of the best one's rule, the best of another
rule."""

CLEARLY_WORSE = 1.64
"""Standard errors behind the best at which a candidate is dropped, whatever its place: 5 %, one-sided."""

WORSE = 0.5
"""Standard errors behind the best at which a candidate of the lower half is dropped."""

NEARLY, HALFWAY = 0.8, 0.5
"""Shares of the best candidate's way, from the loss of the start. A candidate that has come NEARLY as far
goes on though it is behind; one that has come HALFWAY is not dropped yet."""

TREND = 0.5
"""A candidate is expected to go on as it came: on the last rung its loss counts as L·(L/L₁)^TREND, L₁ that of
the first. A rate that is too high for a long run leads early and then stays where its noise holds it. Without
the trend the rate of Muon on one workload of the suite cost 43 % of the final loss, with it at most 5 % on
any; powers from 0.25 to 0.75 differ by less than 1 % in the median."""

CREDIT = {"muonmatched": (2.0, 1.1)}
"""How much further than it has come, in logarithms, a candidate counts as having come on each rung, by rule,
where others have 1: what gains late is not told from what gains early by early losses (Wen et al. 2025,
arXiv:2509.02046: ranks flip while the rate falls). On the suite Muon at its best rate had come 0.46 to 1.6 of
AdamW's way, at AdamW's best rate, after 1.5 % of a run, 0.98 to 1.6 after 4.5 %; at the end it was ahead on
six, level on one, and behind by a quarter on one, without a decay to suit either."""

ALIKE = 2.0
"""Standard errors behind the highest rate of a rule within which the next lower one that is, is taken for it.
Without this, one run of the suite began at a rate that led after 3 % of it and was lost after 10 %."""

HARDLY = 3.0
"""The same where there is one rung alone, whichever rate leads. On the suite at a fifth of its lengths, the
rate that led after 6 to 10 updates was 3 times too high for both Transformers, by 1.4 and 2.9 standard
errors."""

TIE = 0.5
"""Standard errors within which the default candidate wins."""

SEED_NOISE = 0.005
"""Standard deviation of a held-out loss between seeds, as a share of it, where no twin has measured it; that
of the suites' repeated runs is 0.3 to 1 %."""

SCORED = (64, 1024)
"""Fewest and most held-out examples of a score; the fewest bound it where the budget holds less."""

FEWEST_ROWS = 30
"""Rows of a validation part below which differences of losses say nothing; batches of the training part, each
seen before it is trained on, then stand in."""

SEEN = 0.3
"""Share of a candidate's updates, the latest, whose losses stand in for held-out ones."""

WATCHED = 0.9999
"""Largest decay of the average of weights that is scored. The average's own bound (1+t)/(10+t) is what acts:
it spans the last ninth of the updates, between the 5 % and 15 % that cooldowns are seen to be worth
(Hägele et al. 2024, arXiv:2405.18392)."""

STATISTICS = 4
"""Training batches on which batch norms are measured anew for a score of averaged weights. All candidates see
the same ones; with eight, scores took a third of what a search of 430 updates may cost."""

# --- rates ---

RANGE = (30.0, 3_000.0)
"""How far below and above a rule's own default rate a range test looks."""

FEWEST_STEPS = 12
"""Steps of a range test over five decades."""

BOTH_ENDS = 2
"""Rates that it tries besides: the first, and the one beyond its range."""

STEP = 10**0.5
"""Factor from one rate of a rule to the next. What lies between is read off a parabola."""

RATES = (STEP, STEP**2, 1.0)
"""Rates that a rule begins with, the most likely first, in the lowest of them, which is its default as a
rule."""

ABOVE = {"muonmatched": STEP}
"""How far above its default a rule begins. On the suite the best rate of Muon in AdamW's units was 3 to 30
times the default of AdamW, which is its own."""

LEADS = {"muonmatched": STEP**2}
"""How far above its default, by rule, is the candidate to beat where that rule is compared: 0.01. All 72 runs
of the suite at 1.5 and 5 lengths in which AdamW's default was the candidate to beat came to this rule, at a
rate within a step of the ladder from there."""

HIGHEST = {"muonmatched": 0.04}
"""Highest rate, by rule, that a ladder climbs to. A step moves each weight by a fifth of it in the root mean
square, whatever the gradient: 0.1 leads after a dozen updates, and no run of the suite that began there kept
to it."""

MATRICES = 0.1
"""Share of the weights that must lie in hidden matrices for a rule of matrices to be worth a candidate; what
it leaves over is AdamW's. On the suite a Transformer with a fifth of its weights in matrices gains too."""

AROUND_EDGE = {1.0: (3.0, 100.0), 2.0: (0.3, 1000.0)}
"""How far below the edge of divergence the lowest rate lies at least and at most, whatever the default; by
the root of the batch that the rate grows with, 2 for Adam's kind (`power_of`). A default of that kind does
not depend on the unit of the loss, and a range test of a few dozen steps may read its edge wrong by an order
either way: on two workloads of the suite from 0.0027 to 0.047 and from 0.004 to 0.45, as seed and length
would have it. So that default moves only where it is plainly wrong."""

SAME = 1.5
"""Factor within which two rates of one rule are one candidate."""

CAUTIOUS = 2.0
"""What the edge is divided by to bound the default rate of a short run."""

WARMUP = 0.5
"""Share of the first rung in which the rate of a candidate rises, where the schedule is to be chosen."""

# --- what follows from what was measured ---

CLIP = 10.0
"""Norm at which gradients are clipped, in medians of those that the default candidate met: rare by
construction."""

CLIP_SHARE, CLIP_STEPS = 0.02, (20, 200)
"""Of the budget for the updates whose norms the median is taken of, where no candidates are compared; fewest
and most."""

TAU = 0.3
"""Memory of decayed weights as a share of the run: its optimum is stable where the rate and the batch are not
(Bergsma et al. 2025, arXiv:2505.13738). On the suite, Muon at a good rate: 0.26 to 0.4 took `mnist_mlp` from
0.092 to 0.057 and `fsdd_lstm` from 0.032 to 0.010, beside a decay of 0.1; a tenth, which is used for many
epochs elsewhere, cost 3 to 15 % on the three that are repeated most."""

REMEMBERED = 5.0
"""Most epochs that a weight is remembered for: what is learnt again in each of them need not be kept for
longer. On the suite at five lengths, beside a share of the run alone: `trec_transformer` 0.481 to 0.451,
`letter_mlp` 0.070 to 0.063, `fsdd_lstm` 0.039 to 0.024, `mnist_mlp` 0.067 to 0.060, `california_mlp` 0.480 to
0.488, of one seed each."""

DECAY_CAP = 0.3
"""Largest decoupled weight decay that the rule of the time scale may give. Where steps have length lr in each
weight, as Adam's and sign's, no weight grows beyond 1/decay: runs of few updates ask for decays under which a
network cannot say what it is sure of. On 420 points of two classes over 40 epochs, 280 updates that ask for
1.2, a network of 32 ends at a loss of 0.05 to 0.08 with a decay of 1, 0.035 to 0.05 with 0.3, 0.026 to 0.035
without."""

COUPLED_MANY, COUPLED_FEW, MANY_EPOCHS = 5e-4, 1e-4, 10
"""Weight decay inside the gradient (SGD and its kind), above and below so many epochs: the usual values."""

PATIENCE = 3
"""Fewest evaluations without gain before the rate falls."""

PATIENT = 0.1
"""Share of all planned evaluations without gain before the rate falls, where that is more."""

GAIN = 2.0
"""Standard errors of a difference of validation losses that count as gain or loss."""

# --- the batch ---

BATCH_SHARE = 0.03
"""Largest share of the budget for the noise of gradients and the time of a step, half of it for each."""

USUAL = 64
"""Size on which noise is measured where the recipe names none."""

BATCHES = (16, 1024)
"""Sizes that may be chosen, in powers of two. Below, a step on a processor costs mostly itself; above, an
epoch of tens of thousands of examples is a handful of updates."""

SMALLEST_NORMED = 32
"""Smallest size beside batch norms: the error of a variance of n numbers is √(2/n), here a quarter."""

PASSES = 20
"""Fewest updates an epoch that a size must leave; the data would be seen more often than the noise needs."""

UPDATES = 1000
"""Fewest updates of the run that a size must leave, as far as the budget allows any."""

PARTS = 8
"""Parts of a batch whose gradients are compared with that of the whole."""

NOISE_STEPS = (12, 90)
"""Fewest and most updates on which noise is measured. The first third is left out: noise there is that of the
start, which the critical batch of a run soon exceeds."""

BLIND = 4
"""Times the usual size that may be chosen where no clock tells what it costs."""
