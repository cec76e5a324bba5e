"""What a build takes over from the machine's pip and apt, and what it leaves behind."""

from __future__ import annotations

from tests.cluster.imagebuild.host import apt_conf, debian_mirror, parse_pip_config, pip_conf, uv_toml

PIP_LIST = """\
:env:.index-url='https://mirror.example/simple'
:env:.find-links='/opt/wheels'
global.index-url='https://old.example/simple'
global.extra-index-url='https://a.example/simple\\nhttps://b.example/simple'
global.cert='/somewhere/here.crt'
global.timeout='60'
freeze.timeout='10'
"""


def test_pip_settings_of_the_environment_win_and_paths_of_this_machine_stay_here() -> None:
    assert parse_pip_config(PIP_LIST) == {
        "index-url": "https://mirror.example/simple",
        "extra-index-url": "https://a.example/simple\\nhttps://b.example/simple",
        "timeout": "60",
    }


def test_the_same_indexes_reach_pip_and_uv() -> None:
    settings = parse_pip_config(PIP_LIST)
    assert "index-url = https://mirror.example/simple\n" in pip_conf(settings)
    assert "extra-index-url = https://a.example/simple\n    https://b.example/simple\n" in pip_conf(settings)
    assert (
        uv_toml(settings)
        == 'index-url = "https://mirror.example/simple"\nextra-index-url = ["https://a.example/simple", "https://b.example/simple"]\n'
    )


def test_a_machine_without_settings_gives_only_certificates() -> None:
    assert pip_conf({}) == "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n"
    assert uv_toml({}).strip() == ""
    assert apt_conf("") == 'Acquire::https::CAInfo "/etc/ssl/certs/ca-certificates.crt";\n'


def test_proxies_of_apt_are_taken_over_and_hooks_are_not() -> None:
    dump = 'Acquire::http::Proxy "http://proxy.example:3128";\nDPkg::Post-Invoke:: "rm -rf /";\nAcquire::https::Verify-Peer "false";\n'
    assert apt_conf(dump).splitlines()[:2] == ['Acquire::http::Proxy "http://proxy.example:3128";', 'Acquire::https::Verify-Peer "false";']
    assert "Post-Invoke" not in apt_conf(dump)


def test_the_mirror_is_found_in_both_forms_of_apt_sources() -> None:
    stanza = "Types: deb\n# a remark\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n"
    line = "deb [arch=amd64 signed-by=/k.gpg] https://other.example/debian bookworm main\n"
    assert debian_mirror("bookworm", [stanza]) == "http://mirror.example/debian"
    assert debian_mirror("bookworm", [line]) == "https://other.example/debian"
    assert debian_mirror("bookworm", ["Enabled: no\n" + stanza]) is None
    assert debian_mirror("trixie", [stanza, line]) is None


def test_a_third_party_repository_is_not_taken_for_the_mirror() -> None:
    third = "deb https://tools.example/linux/debian bookworm stable\ndeb https://apt.example bookworm main\n"
    own = "deb http://mirror.example/debian bookworm main\n"
    assert debian_mirror("bookworm", [third, own]) == "http://mirror.example/debian"
