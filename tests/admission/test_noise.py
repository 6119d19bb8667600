"""Certificates and revocation lists that were tampered with: whatever bytes come, only a refusal comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from admission.authority import DER, NOW, PEM, Authority
from cryptography import x509
from fuzz.strategies import hostile
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerkm.admission.certificates import CertificateFiles, DeviceCertificates
from brokerkm.admission.revocation import Revocations, read_lists
from brokerkm.admission.subject import MemberName
from brokerkm.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives import serialization

SIGNED = b"a Join"
MEASURED = settings(max_examples=300, deadline=None)


@pytest.mark.parametrize("member", ["cn", "dns", "uri:urn:dev:{member}"])
def test_tampered_chains(tmp_path: Path, member: str) -> None:
    """One certificate of the chain, its order, or its number is not as it was: only the true chain is taken."""
    root = Authority()
    names = [x509.DNSName("pump"), x509.UniformResourceIdentifier("urn:dev:pump")]
    device = Authority("line", parent=root).device("pump", names=names)
    (tmp_path / "ca.pem").write_bytes(root.pem)
    gate = DeviceCertificates(CertificateFiles(str(tmp_path / "ca.pem"), (), MemberName.parse(member)))
    signature = device.sign(SIGNED)
    true = [*device.chain, root.certificate.public_bytes(DER)]

    @MEASURED
    @given(st.lists(hostile(true), min_size=0, max_size=9) | st.permutations(true))
    def feed(chain: Sequence[bytes]) -> None:
        try:
            found = gate.verify(chain, SIGNED, signature, NOW)
        except RefusedError:
            return
        assert (True, frozenset({"pump"})) == (chain[0] == true[0], found.members)

    feed()


@pytest.mark.parametrize("encoding", [DER, PEM])
def test_tampered_revocation_lists(encoding: serialization.Encoding) -> None:
    """A damaged file is no list, and says so."""
    root = Authority()
    device = root.device("pump")
    data = root.revoke(device.certificate).public_bytes(encoding)
    assert 1 == len(read_lists(data))

    @MEASURED
    @given(hostile([data, data + data]))
    def feed(noise: bytes) -> None:
        try:
            Revocations(read_lists(noise))
        except UsageError as error:
            assert "list" in str(error)  # noqa: PT017 - either way is right, but no third

    feed()
