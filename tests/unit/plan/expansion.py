"""What a kubelet makes of an argument or a variable: the rules of k8s.io/kubernetes third_party/forked/golang/expansion."""

from __future__ import annotations

from collections.abc import Mapping


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Return the text as the container gets it: $$ is $, $(NAME) a variable's value if there is one, and everything else stays."""
    data, found, at = text.encode(), b"", 0
    while at < len(data):
        if data[at : at + 1] != b"$" or at + 1 == len(data):
            found, at = found + data[at : at + 1], at + 1
            continue
        following = data[at + 1 : at + 2]
        if following == b"$":
            found, at = found + b"$", at + 2
        elif following == b"(" and (end := data.find(b")", at)) >= 0:
            name = data[at + 2 : end].decode()
            found, at = found + variables.get(name, f"$({name})").encode(), end + 1
        else:
            # Of what follows, the kubelet takes one byte for a character, so that not even a lone $ is safe before other letters.
            found, at = found + b"$" + following.decode("latin-1").encode(), at + 2
    return found.decode()
