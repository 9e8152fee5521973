"""Reading a job.yaml starts fast: nothing heavy is imported for it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = "torch transformers datasets deepspeed peft numpy rich submitit paramiko jinja2 difflib"


def test_the_spec_imports_nothing_heavy() -> None:
    code = (
        "import sys, clusterlm.spec.load as l; l.build_validators()\n"
        "print(sorted(set(sys.argv[1].split()) & set(sys.modules)))\n"
        "print(l.Job(name='x').resources.nodes)"
    )
    command = [sys.executable, "-c", code, HEAVY]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert out.splitlines() == ["[]", "1"]


def test_looking_for_runs_without_a_file_of_clusters_reads_no_yaml() -> None:
    code = (
        "import sys, clusterlm.spec.local_folders as l\n"
        "print(l.local_runs_dirs(), {'yaml', 'pydantic'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout == "[] set()\n"
