"""The part of a page on what was run: command, machine, settings, starts.

What `dreamer/run/record.py` wrote at each start, and `config.yaml`. Nothing
of it is trusted to be what that module would write. Read next: `page.py`.
"""

from collections.abc import Mapping
from typing import Any

from dreamer.options import cut, one_line, shown
from dreamer.pages.elements import Html, command, facts, section, table, tag
from dreamer.pages.read import Logdir, Row, is_number
from dreamer.settings import to_yaml

UNKNOWN = "not known"
MACHINE = {
    "dreamer_version": "Version",
    "git_revision": "Git revision",
    "python_version": "Python",
    "jax_backend": "JAX computes on",
    "devices": "Devices",
    "nvidia_driver": "NVIDIA driver",
    "cpu": "CPU",
    "cpu_cores_usable": "CPU cores",
    "ram_gib": "RAM in GiB",
    "operating_system": "Operating system",
    "environment_variables": "Environment",
}


def origin(found: Logdir) -> Html:
    """What somebody needs to do it again."""
    parts: list[object] = []
    if found.starts:
        newest = found.starts[-1]
        parts = [
            tag("h3", "Command"),
            command(_text(newest.get("command"))),
            tag("h3", "Version and machine"),
            facts(_machine(newest), "list"),
            tag("h3", "Starts"),
            _starts(found),
        ]
    else:
        words = (
            "Command, versions and hardware are not known: starts.jsonl, which"
            " dreamer.train writes at every start, is not here."
        )
        parts = [tag("p", words, class_="soft")]
    parts += [tag("h3", "Settings"), _settings(found)]
    text = tag("pre", tag("code", to_yaml(found.config)), tabindex=0)
    parts.append(_folded("All settings", text))
    packages = found.starts[-1].get("package_versions") if found.starts else 0
    if isinstance(packages, Mapping):
        rows = [(k, _text(x)) for k, x in packages.items()]
        heads = "Package", "Version"
        versions = table("Installed at the last start", heads, rows, False)
        parts.append(_folded("All packages", versions))
    return section("What was run", *parts)


def _folded(title: str, content: Html) -> Html:
    return tag("details", tag("summary", title), content)


def _text(value: Any) -> str:
    """A value of a record, for a person."""
    if value is None or value == {}:
        return UNKNOWN
    if isinstance(value, Mapping):
        value = ", ".join(f"{k}={x}" for k, x in value.items())
    return one_line(str(value))


def _machine(start: Row) -> list[tuple[str, str]]:
    """What is known of the program and of what it ran on."""
    known = {
        k: _text(start.get(k))
        for k in MACHINE
        if start.get(k) not in (None, {})
    }
    if start.get("git_uncommitted_changes") is True:
        known["git_revision"] = (
            f"{known.get('git_revision', '')} with uncommitted changes"
        )
    devices = start.get("devices")
    if isinstance(devices, Mapping):
        known["devices"] = ", ".join(f"{n} × {k}" for k, n in devices.items())
    packages = start.get("package_versions")
    if isinstance(packages, Mapping) and "jax" in packages:
        backend = known.get("jax_backend", UNKNOWN)
        known["jax_backend"] = f"{backend}, version {_text(packages['jax'])}"
    return [(name, known[k]) for k, name in MACHINE.items() if k in known]


def _starts(found: Logdir) -> Html:
    rows = []
    for start in found.starts:
        steps = start.get("policy_steps")
        rows.append(
            (
                _text(start.get("time"))
                .replace("T", " ")
                .replace("Z", " UTC"),
                f"{steps:,}" if is_number(steps) else UNKNOWN,
                cut(_text(start.get("git_revision"))[:10]),
                _text(start.get("cpu")),
                tag("code", _text(start.get("command"))),
            )
        )
    return table(
        "Every start of the run, and the policy step that it began at",
        ("Start", "Policy step", "Revision", "CPU", "Command"),
        rows,
        numbers=False,
    )


def _settings(found: Logdir) -> Html:
    """What differs from the presets of the command, or the defaults."""
    presets = " ".join(found.presets)
    base = f"--configs {presets}" if presets else "the defaults"
    if not found.changed:
        return tag("p", f"All settings are those of {base}.")
    rows = [
        (tag("code", key), shown(before), shown(now))
        for key, (before, now) in found.changed.items()
    ]
    return table(
        f"Settings that differ from {base}",
        ("Setting", "Preset" if presets else "Default", "This run"),
        rows,
        numbers=False,
    )
