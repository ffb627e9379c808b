"""Attention in which every key is visible in one interval of the query's clock.

    query q sees key k   iff   start[k] <= clock[q] < stop[k]

Causal text, bidirectional pictures, hidden spans, packed documents, sliding windows and padding
are all intervals (FlashMask, arXiv 2410.01359), so a mask costs three integer vectors.

`B` batch, `T` queries, `S` keys, `N` query heads, `K` key heads, `H` head dim, `Hv` value dim.
"""

from collections.abc import Mapping

from jaxtyping import Array, Float, Int

from pallas_kernels.interval_attention import dispatch, reference
from pallas_kernels.interval_attention.dispatch import Plans, make_plans
from pallas_kernels.interval_attention.manual import vary_alike
from pallas_kernels.interval_attention.plan import Plan, make_plan, whole_numbers

IMPLEMENTATIONS = ("reference", *dispatch.KERNELS)


def interval_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K Hv"],
    clock: Int[Array, "B T"],
    start: Int[Array, "B S"],
    stop: Int[Array, "B S"],
    *,
    plan: Plan | Plans | None = None,
    scale: float | None = None,
    soft_cap: float | None = None,
    implementation: str | None = None,
    return_lse: bool = False,
) -> Float[Array, "B T N Hv"] | tuple[Float[Array, "B T N Hv"], Float[Array, "B T N"]]:
    """Softmax attention over the visible keys; differentiable in q, k and v.

    Query head n reads key head `n // (N / K)`. `scale` defaults to `H ** -0.5`; `soft_cap` c turns
    a score s into `c tanh(s / c)`. Statistics are float32, the output has the dtype of `q`. A
    query that sees no key gives zeros, lse -inf and zero gradients. `return_lse` adds the float32
    log-sum-exp of the scores, differentiable too. Inputs must be finite: kernels may spread a NaN
    to queries of its row that do not see it.

    `plan`: what `make_plan` or `make_plans` (one for each kernel) gave for these very clocks and
    intervals; kernels visit its blocks, and make one of their own at every call without it. The
    reference reads every block and ignores it.
    `implementation`: None is the best for the platform being compiled for, which on a CPU is the
    reference; a name is used or fails; a named kernel runs on a CPU in Pallas's interpret mode,
    also where its chip would refuse (float32 on a GPU). Whether a GPU is a Hopper is asked of this
    machine, so that a program compiled ahead for another one gets the reference. In a `shard_map`
    a kernel by name runs on a CPU with `check_vma=False` alone.

    Raises ValueError if shapes disagree, clocks are no whole numbers, `soft_cap` is not positive or
    the implementation is unknown; and when the program is lowered, if the named kernel cannot do
    the call there. TypeError for what is no plan.
    """
    _check(q, k, v, clock, start, stop, plan)
    if soft_cap is not None and not soft_cap > 0:
        raise ValueError(f"soft_cap={soft_cap} must be positive; leave it out for none")
    clock, start, stop = whole_numbers(clock=clock, start=start, stop=stop)
    q, k, v, clock, start, stop, plan = vary_alike((q, k, v, clock, start, stop, plan))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if implementation == "reference":
        run = reference.interval_attention
        out, lse = run(q, k, v, clock, start, stop, scale=scale, soft_cap=soft_cap)
    elif implementation is None or implementation in IMPLEMENTATIONS:
        mask = dispatch.Mask(clock, start, stop, plan)
        out, lse = dispatch.attend(dispatch.Call(implementation, scale, soft_cap), q, k, v, mask)
    else:
        names = [*IMPLEMENTATIONS]
        raise ValueError(f"unknown implementation {implementation!r}; choose one of {names}")
    return (out, lse) if return_lse else out


def _check(q, k, v, clock, start, stop, plan) -> None:
    for name, x in {"q": q, "k": k, "v": v}.items():
        if x.ndim != 4:
            raise ValueError(f"{name} has shape {x.shape}, but must have four axes, [B T N H]")
    (B, T, N, H), (S, K) = q.shape, k.shape[1:3]
    wanted = {
        "k": (k, (B, S, K, H)),
        "v": (v, (B, S, K, v.shape[-1])),
        "clock": (clock, (B, T)),
        "start": (start, (B, S)),
        "stop": (stop, (B, S)),
    }
    plans = plan if isinstance(plan, Mapping) else {"plan": plan} if plan is not None else {}
    if isinstance(plan, Mapping) and (unknown := plan.keys() - dispatch.KERNELS.keys()):
        raise ValueError(f"plans for {sorted(unknown)}: the kernels are {sorted(dispatch.KERNELS)}")
    if wrong := [p for p in plans.values() if not isinstance(p, Plan)]:
        raise TypeError(f"{wrong[0]!r} is no plan: make one with make_plan or make_plans")
    if 0 in (*q.shape, *v.shape):
        raise ValueError(f"q {q.shape} and v {v.shape}: attention needs at least one of everything")
    for name, p in plans.items():
        wanted[f"{name}.clock"] = p.clock, (B, T)
        wanted |= {f"{name}.start": (p.start, (B, S)), f"{name}.stop": (p.stop, (B, S))}
    for name, (array, shape) in wanted.items():
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, but q {q.shape} asks for {shape}")
    if N % K:
        raise ValueError(f"{N} query heads cannot be shared out over {K} key heads: not a multiple")
