"""A cluster's defaults, put into a job's values before they are checked; what the job says wins.

Two layers: what the user wrote in the profile, and below it what doctor found out (`probe.py`). A
key that stands in the job, empty or not, is left alone; `env` and `extra` are joined name by name.
What is filled in is told, one line for each section.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from clusterlm.spec.fabrics import FABRICS
from clusterlm.spec.image import Runtime
from clusterlm.spec.job import Job
from clusterlm.spec.probe import Probe
from clusterlm.spec.profile import Profile
from clusterlm.spec.wording import printable

Values = dict[str, Any]


def defaults_of(profile: Profile, probe: Probe | None = None) -> Values:
    """Values that a job on this cluster has unless it says otherwise, as they would stand in it."""
    values: Values = {"image": {}}
    for layer in (_of_profile(profile), _of_probe(probe)):
        _fill_in(values, layer)
    return {key: section for key, section in values.items() if section}


def apply_profile(values: Values, profile: Profile, probe: Probe | None = None) -> list[str]:
    """Fill in what a job leaves out; its `cluster` names the profile.

    Args:
        values: of a job.yaml, as written; changed in place.
        profile: of its cluster.
        probe: what doctor found there.

    Returns:
        Notes for the user: what was filled in, and from where.
    """
    name = printable(str(values.get("cluster")))
    notes = []
    for origin, layer in (("profile", _of_profile(profile)), ("doctor on", _of_probe(probe))):
        filled = _fill_in(values, layer)
        notes += [f"from {origin} {name}: {', '.join(words)}" for words in filled]
    return notes


def contradictions(job: Job, probe: Probe | None) -> list[str]:
    """What doctor found and the job contradicts; notes, since the cluster may have changed."""
    if probe is None:
        return []
    notes, runtime = [], job.runtime
    if job.image is not None and _has_runtime(probe, runtime) is False:
        there = _runtime_of(probe)
        instead = f"; it has {there}" if there else ""
        notes.append(f"image.runtime: doctor found no {runtime} on {job.cluster}{instead}")
    asked, accepted = job.resources.gpu_request or "gres", probe.gpu_requests_accepted
    if job.resources.gpus_per_node and accepted and asked not in accepted:
        notes.append(
            f"resources.gpu_request: {job.cluster} refused --{asked} when doctor asked; "
            f"it takes --{accepted[0]}"
        )
    most = probe.max_array_size
    if most is not None and job.encode_tasks > most - 1:
        notes.append(f"data.tasks: {job.cluster} allows arrays of {most - 1} (MaxArraySize)")
    return notes


def _of_profile(profile: Profile) -> Values:
    resources = profile.resources.model_dump(exclude_none=True) if profile.resources else {}
    env = {**(FABRICS[profile.fabric].env if profile.fabric else {}), **profile.env}
    image: Values = {"runtime": profile.runtime} if profile.runtime else {}
    if profile.mounts:
        image["mounts"] = list(profile.mounts)
    return {"resources": resources, "image": image, "env": env}


def _of_probe(probe: Probe | None) -> Values:
    if probe is None:
        return {}
    resources, image = {}, {}
    if probe.gpu_requests_accepted and "gres" not in probe.gpu_requests_accepted:
        resources["gpu_request"] = probe.gpu_requests_accepted[0]
    # pyxis is what a job has anyway
    if (runtime := _runtime_of(probe)) not in (None, "pyxis"):
        image["runtime"] = runtime
    return {"resources": resources, "image": image}


def _runtime_of(probe: Probe) -> Runtime | None:
    """The best that is surely there."""
    order: tuple[Runtime, ...] = ("pyxis", "enroot", "apptainer")
    return next((runtime for runtime in order if _has_runtime(probe, runtime)), None)


def _has_runtime(probe: Probe, runtime: Runtime) -> bool | None:
    found = {"pyxis": probe.pyxis, "enroot": probe.enroot, "apptainer": probe.apptainer}
    # a version, or no text where it is not there
    value = found.get(runtime)
    return None if value is None else bool(value)


def _fill_in(values: Values, layer: Values) -> list[list[str]]:
    """Put a layer's keys where there are none; gives words for each section that got some."""
    filled = [
        _fill_section(values, "resources", layer, _resource_words),
        _fill_image(values, layer.get("image", {})),
        _fill_section(values, "env", layer, lambda key, _: key),
    ]
    heads = ("", "image.", "env ")
    return [_with_head(head, words) for head, words in zip(heads, filled, strict=True) if words]


def _with_head(head: str, words: list[str]) -> list[str]:
    return [head + words[0], *words[1:]]


def _fill_section(
    values: Values, section: str, layer: Values, words_for: Callable[[str, Any], str]
) -> list[str]:
    own = values.setdefault(section, {}) if layer.get(section) else None
    if not isinstance(own, dict):
        # it is written wrongly; the check says so
        return []
    words = []
    for key, value in layer[section].items():
        if key not in own:
            own[key] = value
            words.append(words_for(key, value))
        elif isinstance(value, dict) and isinstance(own[key], dict):
            further = {k: v for k, v in value.items() if k not in own[key]}
            own[key] = {**own[key], **further}
            words += [f"{key}.{k} {v}" for k, v in further.items()]
        elif section == "resources" and key == "extra" and isinstance(own[key], list):
            further_options = _of_other_names(own[key], value, _option_name)
            own[key] = [*further_options, *own[key]]
            words += further_options
    return words


def _fill_image(values: Values, layer: Values) -> list[str]:
    own = values.get("image")
    if not isinstance(own, dict):
        # without an image there is nothing to start or to mount into
        return []
    words = []
    if "runtime" in layer and own.get("runtime") is None:
        own["runtime"] = layer["runtime"]
        words.append(f"runtime {layer['runtime']}")
    mounts = own.get("mounts", [])
    if "mounts" in layer and isinstance(mounts, list):
        further = _of_other_names(mounts, layer["mounts"], _target)
        own["mounts"] = [*further, *mounts]
        words += [f"mounts {', '.join(further)}"] if further else []
    return words


def _of_other_names(
    own: Iterable[object], further: Iterable[str], name_of: Callable[[str], str]
) -> list[str]:
    taken = {name_of(one) for one in own if isinstance(one, str)}
    return [one for one in further if name_of(one) not in taken]


def _option_name(option: str) -> str:
    return option.partition("=")[0]


def _target(mount: str) -> str:
    source, _, rest = mount.partition(":")
    return rest.partition(":")[0] or source


def _resource_words(key: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}.{inner} {v}" for inner, v in value.items())
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, bool):
        return key if value else f"{key} false"
    return f"{key} {value}"
