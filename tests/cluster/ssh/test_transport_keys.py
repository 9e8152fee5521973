"""Who a host is: known_hosts decides, in every form it has, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from clusterlm.errors import SshError
from tests.bed.ssh_fixture import SshHome
from tests.bed.sshd import HOST, Sshd


@pytest.fixture
def server(ssh: SshHome) -> Sshd:
    return ssh.server("plain")


def _key(ssh: SshHome, path: Path) -> str:
    return ssh.keys.public(path)


def _connects(ssh: SshHome, backend: str, server: Sshd, *lines: str) -> bool:
    ssh.alias("cluster", server, *lines)
    return ssh.connect(backend, "cluster").run(["true"], timeout_s=60).is_ok


def _refusal(ssh: SshHome, backend: str, server: Sshd, *lines: str) -> str:
    ssh.alias("cluster", server, *lines)
    with pytest.raises(SshError) as caught:
        ssh.connect(backend, "cluster").run(["true"])
    return str(caught.value)


def _fingerprint(key: Path) -> str:
    done = subprocess.run(["ssh-keygen", "-lf", f"{key}.pub"], capture_output=True, text=True)
    return done.stdout.split()[1]


def test_an_unknown_host_is_refused_with_its_fingerprint_and_what_to_do(
    ssh: SshHome, backend: str, server: Sshd
) -> None:
    before = ssh.known_hosts.read_text()
    # not even the user's own word makes us take any key
    text = _refusal(ssh, backend, server, "StrictHostKeyChecking no")
    assert "not in your known_hosts" in text
    assert _fingerprint(server.host_key) in text
    assert f"ssh-keyscan -H -p {server.port} {HOST} >> " in text
    assert "ssh -F" in text
    assert ssh.known_hosts.read_text() == before


def test_a_changed_key_is_refused_loudly(ssh: SshHome, backend: str, server: Sshd) -> None:
    other = _key(ssh, ssh.keys.new("another"))
    ssh.known_hosts.write_text(f"# first line\n[{HOST}]:{server.port} {other}\n")
    text = _refusal(ssh, backend, server, "StrictHostKeyChecking no")
    assert "HAS CHANGED" in text
    assert f"{ssh.known_hosts} line 2" in text
    assert _fingerprint(server.host_key) in text
    assert f"ssh-keygen -R '[{HOST}]:{server.port}'" in text


@pytest.mark.parametrize(
    "names", ["[127.0.0.*]:{port}", "[127.0.0.?]:*", "a,[{host}]:{port}", "*", "{host}"]
)
def test_forms_of_a_name(ssh: SshHome, backend: str, server: Sshd, names: str) -> None:
    names = names.format(host=HOST, port=server.port)
    ssh.known_hosts.write_text(f"{names} {_key(ssh, server.host_key)} a comment\n")
    assert _connects(ssh, backend, server)


def test_hashed_names(ssh: SshHome, backend: str, server: Sshd) -> None:
    ssh.known_hosts.write_text(f"{server.known_host}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(ssh.known_hosts)], check=True)
    assert HOST not in ssh.known_hosts.read_text()
    assert _connects(ssh, backend, server)


def test_a_name_that_is_excluded_is_unknown(ssh: SshHome, backend: str, server: Sshd) -> None:
    ssh.known_hosts.write_text(f"!{HOST},![{HOST}]:{server.port},* {_key(ssh, server.host_key)}\n")
    assert "not in your known_hosts" in _refusal(ssh, backend, server)


def test_a_name_of_its_own_in_known_hosts(ssh: SshHome, backend: str, server: Sshd) -> None:
    ssh.known_hosts.write_text(f"cluster-alias {_key(ssh, server.host_key)}\n")
    assert _connects(ssh, backend, server, "HostKeyAlias cluster-alias")


def test_lines_that_cannot_be_read_are_left_out(ssh: SshHome, backend: str, server: Sshd) -> None:
    ssh.known_hosts.write_bytes(
        b"\n# note\nonly-a-name\n@unknown-marker * ssh-ed25519 AAAA\n* ssh-ed25519 !!!\n\xff\xfe\n"
        b"@revoked * ssh-ed25519 AAAA\n" + server.known_host.encode() + b"\n"
    )
    assert _connects(ssh, backend, server)


def test_the_key_that_is_known_is_asked_for(ssh: SshHome, backend: str) -> None:
    rsa = ssh.keys.new("host-two", "rsa")
    server = ssh.server("two-keys", more=f"HostKey {rsa}")
    ssh.known_hosts.write_text(f"[{HOST}]:{server.port} {_key(ssh, rsa)}\n")
    assert _connects(ssh, backend, server)


def test_a_revoked_key_is_refused_though_it_is_known(
    ssh: SshHome, backend: str, server: Sshd
) -> None:
    ssh.know(server)
    with ssh.known_hosts.open("a") as file:
        file.write(f"@revoked * {_key(ssh, server.host_key)}\n")
    assert "REVOKED" in _refusal(ssh, backend, server)


def _certified(ssh: SshHome, name: str, *options: str) -> Sshd:
    """A server whose key no known_hosts has, but an authority vouches for."""
    authority, key = ssh.keys.new("authority"), ssh.keys.new(f"host-{name}")
    certificate = Path(f"{key}-cert.pub")
    if not certificate.exists():
        argv = ["ssh-keygen", "-q", "-s", str(authority), "-I", name, *options, f"{key}.pub"]
        subprocess.run(argv, check=True, capture_output=True)
    return ssh.server(name, host_key=key, certificate=certificate)


def _trust_authority(ssh: SshHome, names: str = "*") -> None:
    key = _key(ssh, ssh.keys.new("authority"))
    ssh.known_hosts.write_text(f"@cert-authority {names} {key}\n")


def test_an_authority_vouches_for_a_host(ssh: SshHome, backend: str) -> None:
    server = _certified(ssh, "good", "-h", "-n", HOST)
    _trust_authority(ssh, f"[127.0.0.*]:{server.port}")
    assert _connects(ssh, backend, server)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("for-another", ["-h", "-n", "login.example.org"]),
        ("of-a-user", ["-n", HOST]),
        ("too-old", ["-h", "-n", HOST, "-V", "20200101:20200102"]),
        ("not-yet", ["-h", "-n", HOST, "-V", "20990101:20990102"]),
    ],
)
def test_a_certificate_that_does_not_hold(
    ssh: SshHome, backend: str, name: str, options: list[str]
) -> None:
    # sshd itself refuses to show a user's certificate: then there is only an unknown key
    server = _certified(ssh, name, *options)
    _trust_authority(ssh)
    text = _refusal(ssh, backend, server)
    assert "certificate does not hold" in text or "not in your known_hosts" in text
    # a key that is known by itself needs no certificate
    ssh.know(server)
    assert _connects(ssh, backend, server)


def test_another_authority_vouches_for_nothing(ssh: SshHome, backend: str) -> None:
    server = _certified(ssh, "good", "-h", "-n", HOST)
    ssh.known_hosts.write_text(f"@cert-authority * {_key(ssh, ssh.keys.new('stranger'))}\n")
    _refusal(ssh, backend, server)
    _trust_authority(ssh, "other.example.org")
    assert "not in your known_hosts" in _refusal(ssh, backend, server)


def test_a_revoked_authority_vouches_for_nothing(ssh: SshHome, backend: str) -> None:
    server = _certified(ssh, "good", "-h", "-n", HOST)
    _trust_authority(ssh)
    with ssh.known_hosts.open("a") as file:
        file.write(f"@revoked * {_key(ssh, ssh.keys.new('authority'))}\n")
    _refusal(ssh, backend, server)
