"""Numbers of the authors' public code in a file: read, named and checked.

A fixture is an .npz file of arrays, and of dimensions as JSON in `meta`.
`Fixture.load` sees that all inputs are there and go together, so that what
compares them need not; `our_path` says which of our parameters a tensor of
theirs is.  Next: parity.py, which compares.
"""

import dataclasses
import json
import re
import zipfile
from pathlib import Path

import jax
import numpy as np

from dreamer.checks import check
from dreamer.config import Config
from dreamer.options import apply

# The authors' name of a tensor -> ours.  Digits after # are converted.
NAMES = [
    (r"enc/cnn(\d)/", r"world/encoder/stages/\1/conv/"),
    (r"enc/cnn(\d)norm/", r"world/encoder/stages/\1/norm/"),
    (r"dyn/dynin0/", "world/rssm/deter_in/linear/"),
    (r"dyn/dynin0norm/", "world/rssm/deter_in/norm/"),
    (r"dyn/dynin1/", "world/rssm/stoch_in/linear/"),
    (r"dyn/dynin1norm/", "world/rssm/stoch_in/norm/"),
    (r"dyn/dynin2/", "world/rssm/action_in/linear/"),
    (r"dyn/dynin2norm/", "world/rssm/action_in/norm/"),
    (r"dyn/dynhid0/", "world/rssm/mix/"),
    (r"dyn/dynhid0norm/", "world/rssm/mix_norm/"),
    (r"dyn/dyngru/", "world/rssm/gates/"),
    (r"dyn/obs0/", "world/rssm/posterior_in/"),
    (r"dyn/obs0norm/", "world/rssm/posterior_norm/"),
    (r"dyn/obslogit/", "world/rssm/posterior_out/"),
    (r"dyn/prior(\d)/", r"world/rssm/prior_mlp/layers/\1/linear/"),
    (r"dyn/prior(\d)norm/", r"world/rssm/prior_mlp/layers/\1/norm/"),
    (r"dyn/priorlogit/", "world/rssm/prior_out/"),
    (r"dec/sp0/", "world/decoder/deter_in/"),
    (r"dec/sp1/", "world/decoder/stoch_in/linear/"),
    (r"dec/sp1norm/", "world/decoder/stoch_in/norm/"),
    (r"dec/sp2/", "world/decoder/stoch_out/"),
    (r"dec/spnorm/", "world/decoder/norm/"),
    (r"dec/conv2/", "world/decoder/stages/0/conv/"),
    (r"dec/conv1/", "world/decoder/stages/1/conv/"),
    (r"dec/conv0/", "world/decoder/stages/2/conv/"),
    (r"dec/conv2norm/", "world/decoder/stages/0/norm/"),
    (r"dec/conv1norm/", "world/decoder/stages/1/norm/"),
    (r"dec/conv0norm/", "world/decoder/stages/2/norm/"),
    (r"dec/imgout/", "world/decoder/out/"),
    (r"rew/", "world/reward_head/"),
    (r"con/", "world/continue_head/"),
    (r"pol/", "actor/head/"),
    (r"(slow)?val/", "critic/head/"),
]
HEAD_NAMES = [
    (r"mlp/linear(\d)/", r"mlp/layers/\1/linear/"),
    (r"mlp/norm(\d)/", r"mlp/layers/\1/norm/"),
    (r"head/head/(action/)?logits?/", "head/out/"),
    (r"_head/head/logits?/", "_head/out/"),
]


NARROW = {"f": np.float32, "i": np.int32}  # as the agent computes
LARGEST = 2**30  # bytes of a fixture's arrays; a small file can hold more
# A fixture's dimensions -> the settings that they are.
SETTINGS = {
    "deter": ["agent.dyn.rssm.deter"],
    "hidden": ["agent.dyn.rssm.hidden"],
    "stoch": ["agent.dyn.rssm.stoch"],
    "classes": ["agent.dyn.rssm.classes"],
    "blocks": ["agent.dyn.rssm.blocks"],
    "depth": ["agent.enc.simple.depth", "agent.dec.simple.depth"],
    "units": [
        "agent.enc.simple.units",
        "agent.dec.simple.units",
        "agent.rewhead.units",
        "agent.conhead.units",
        "agent.policy.units",
        "agent.value.units",
    ],
    "bins": ["agent.rewhead.bins", "agent.value.bins"],
    "imag": ["agent.imag_length"],
    "warmup": ["agent.opt.warmup"],
    "B": ["batch_size"],
    "T": ["batch_length"],
}


class FixtureError(ValueError):
    """The file is no fixture of the expected form."""


def our_path(name: str) -> tuple[str | int, ...]:
    """Path in our parameters of a tensor named by the authors' code."""
    for pattern, ours in NAMES:
        result, count = re.subn("^" + pattern, ours, name)
        if count:
            break
    else:
        raise FixtureError(f"no parameter of ours is named {name!r}")
    for pattern, ours in HEAD_NAMES:
        result = re.sub(pattern, ours, result)
    return tuple(
        int(part) if part.isdigit() else part for part in result.split("/")
    )


def get(tree: dict, path: tuple[str | int, ...]) -> jax.Array:
    """The array of a nested dict at a path."""
    for part in path:
        tree = tree.get(part) if isinstance(tree, dict) else None
    if tree is None or isinstance(tree, dict):
        name = "/".join(map(str, path))
        raise FixtureError(f"no parameter of ours is {name}")
    return tree


@dataclasses.dataclass(frozen=True)
class Fixture:
    """Arrays by name and the dimensions they were made with."""

    arrays: dict[str, np.ndarray]
    config: dict
    init_std: dict[str, float]

    @classmethod
    def load(cls, path: Path) -> "Fixture":
        """Reads and checks a fixture; nothing in it can run code.

        Raises:
          FixtureError: the file is no fixture, or one without some input.
        """
        try:
            arrays = read_arrays(path)
            meta = json.loads(str(arrays.pop("meta")))
            fixture = cls(arrays, meta["config"], meta["init_std"])
            check_inputs(fixture)
        except Exception as error:  # NumPy, zip and JSON have no end of them
            raise FixtureError(f"cannot read fixture {path}: {error!r}") from (
                error
            )
        return fixture

    @property
    def acting_steps(self) -> int:
        """How many consecutive acting steps there are."""
        return len({k.split("/")[0] for k in self.arrays if k[:6] == "policy"})

    def array(self, name: str) -> np.ndarray:
        """The array of that name."""
        if name not in self.arrays:
            raise FixtureError(f"fixture has no array {name}")
        return self.arrays[name]

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays whose name starts with prefix/, without it; not none."""
        start = prefix + "/"
        found = {
            k[len(start) :]: v
            for k, v in self.arrays.items()
            if k.startswith(start)
        }
        if not found:
            raise FixtureError(f"fixture has no arrays under {start}")
        return found


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file by name."""
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST:
            raise FixtureError(f"expected at most {LARGEST} bytes of arrays")
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name, array in arrays.items():
        known = re.match(
            r"(batch\d|policy\d|params|expect)/[\w/]+$|meta$", name
        )
        if not known or not isinstance(array, np.ndarray):
            raise FixtureError(f"{name!r} is no array of a fixture")
        kind = array.dtype.kind
        if name != "meta" and kind not in "biuf":
            raise FixtureError(f"{name} holds {array.dtype}, expected numbers")
        arrays[name] = array.astype(NARROW.get(kind, array.dtype))
    return arrays


def check_inputs(fixture: Fixture) -> None:
    """Sees that dimensions and inputs are there and go together."""
    config, ours = fixture.config, settings(fixture.config)
    rssm, size = ours.agent.dyn.rssm, tuple(config["size"])
    for count in (config["acts"], config["N"], *size[2:]):
        if type(count) is not int or count < 1:
            raise FixtureError(f"{count!r}: expected a whole number >= 1")
    for name, std in fixture.init_std.items():
        if type(std) not in (int, float):
            raise FixtureError(f"init_std of {name} is {std!r}")
    flags = ("is_first", "is_last", "is_terminal")
    batch = {
        **dict.fromkeys(flags, ((), "b")),
        "image": (size, "u1"),
        "reward": ((), "f"),
        "action": ((), "i"),
        "dyn/deter": ((rssm.deter,), "f"),
        "dyn/stoch": ((rssm.stoch, rssm.classes), "f"),
    }
    lead = (ours.batch_size, 1 + ours.batch_length)
    for index in range(config["N"]):
        check_group(fixture, f"batch{index}", lead, batch)
    lead = fixture.array("policy0/is_first").shape[:1]
    acting = {key: batch[key] for key in ("image", "is_first")}
    for index in range(fixture.acting_steps):
        check_group(fixture, f"policy{index}", lead, acting)


def check_group(
    fixture: Fixture,
    group: str,
    lead: tuple[int, ...],
    fields: dict[str, tuple[tuple[int, ...], str]],
) -> None:
    """Sees that a group has these fields: shape without lead, NumPy kind."""
    arrays = fixture.under(group)
    if odd := arrays.keys() ^ fields.keys():
        raise FixtureError(f"{group} needs {sorted(fields)}, not {odd}")
    for name, (shape, kind) in fields.items():
        found = arrays[name]
        if found.shape != lead + shape or kind not in found.dtype.str:
            raise FixtureError(
                f"{group}/{name} is {found.dtype}{list(found.shape)},"
                f" expected {kind}{list(lead + shape)}"
            )


def settings(config: dict) -> Config:
    """Our settings for a fixture's dimensions.

    Raises:
      ConfigError: one is out of its range, or they do not go together.
    """
    values = {
        name: config[key] for key, names in SETTINGS.items() for name in names
    }
    size = {"env.gym.size": config["size"][:2], "run.train_ratio": 0}
    ours = apply(Config(), values | size, "")
    check(ours)
    return ours
