"""Which device certificates let a device in: real authorities, made for each test."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import os
from typing import TYPE_CHECKING

import pytest
from admission.authority import (
    AT,
    AUTHORITY,
    CLIENT,
    DAY,
    DER,
    NOW,
    PEM,
    Authority,
    Device,
    ec_key,
    name,
    usage,
)
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, utils
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from brokerkm.admission.certificates import CertificateFiles, DeviceCertificates, Verified
from brokerkm.admission.subject import MemberName
from brokerkm.errors import Reason, RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from admission.authority import Key

SIGNED = b"brokerkm v1 possession\x00 and a Join"


class Gate:
    """Files of authorities and lists, and the verification that they give."""

    def __init__(self, directory: Path, *authorities: Authority, member: str = "cn") -> None:
        self.bundle = directory / "ca.pem"
        self.bundle.write_bytes(b"".join(authority.pem for authority in authorities))
        self.lists: list[Path] = []
        self._directory = directory
        self._member = MemberName.parse(member)

    def add_list(self, data: bytes) -> Path:
        """Configure a revocation list."""
        self.lists.append(self._directory / f"{len(self.lists)}.crl")
        self.lists[-1].write_bytes(data)
        return self.lists[-1]

    def open(self) -> DeviceCertificates:
        """Return the verification."""
        return DeviceCertificates(CertificateFiles(str(self.bundle), tuple(map(str, self.lists)), self._member))

    def verify(self, device: Device, *, now: float = NOW, chain: Sequence[bytes] | None = None) -> Verified:
        """Verify what `device` shows."""
        return self.open().verify(device.chain if chain is None else chain, SIGNED, device.sign(SIGNED), now)

    def refuses(self, device: Device, *, now: float = NOW, chain: Sequence[bytes] | None = None) -> str:
        """Return why `device` is refused."""
        with pytest.raises(RefusedError) as caught:
            self.verify(device, now=now, chain=chain)
        assert (Reason.BAD_CERTIFICATE, "credential") == (caught.value.reason, caught.value.field)
        return caught.value.detail


KEYS = {
    "p256": ec_key,
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("of_device", KEYS)
@pytest.mark.parametrize("of_root", KEYS)
def test_a_device_with_a_certificate(tmp_path: Path, of_root: str, of_device: str) -> None:
    """Any kind of key certifies any kind of key; what is verified is told."""
    root = Authority(key=KEYS[of_root]())
    device = root.device("pump", key=KEYS[of_device]())
    found = Gate(tmp_path, root).verify(device)
    spki = device.certificate.public_key().public_bytes(DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    expected = (frozenset({"pump"}), hashlib.sha256(spki).digest(), (NOW + 864_000) * 1000)
    assert expected == found[:3]
    assert ("CN=pump,O=plant", "CN=root,O=plant") == found[3:]


def test_authorities_between(tmp_path: Path) -> None:
    """Two of them, shown by the device; the root may be shown too."""
    root = Authority()
    device = Authority("b", parent=Authority("a", parent=root)).device("pump")
    gate = Gate(tmp_path, Authority("other"), root)
    assert {"pump"} == gate.verify(device).members
    assert {"pump"} == gate.verify(device, chain=[*device.chain, root.certificate.public_bytes(DER)]).members


def test_a_signature_by_another_key(tmp_path: Path) -> None:
    """Who has seen a certificate does not hold its key."""
    root = Authority()
    device = root.device("pump")
    for thief in (
        Device(ec_key(), device.certificate),
        Device(ed25519.Ed25519PrivateKey.generate(), device.certificate),
    ):
        with pytest.raises(RefusedError) as caught:
            Gate(tmp_path, root).verify(thief)
        assert (Reason.BAD_SIGNATURE, "proof") == (caught.value.reason, caught.value.field)


def test_an_authority_of_the_same_name(tmp_path: Path) -> None:
    """Names prove nothing, nor does a key identifier that was copied."""
    root = Authority()
    assert "a signature in it does not hold" == Gate(tmp_path, root).refuses(Authority().device("pump"))
    assert "its issuer is not trusted" == Gate(tmp_path, root).refuses(Authority("other").device("pump"))


def test_a_renewed_authority(tmp_path: Path) -> None:
    """Two anchors of one name are told apart by their key identifiers."""
    old, new = ec_key(), ec_key()
    roots = [
        Authority(
            key=key, extensions=[*AUTHORITY, (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)]
        )
        for key in (old, new)
    ]
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(new.public_key())
    device = roots[1].device("pump", extensions=[CLIENT, (identifier, False)])
    assert {"pump"} == Gate(tmp_path, *roots).verify(device).members


@pytest.mark.parametrize(("offset", "inside"), [(-11, False), (-10.001, True), (10.001, True), (11, False)])
def test_validity(tmp_path: Path, offset: float, inside: bool) -> None:  # noqa: FBT001 - a parameter
    """From ten days before to ten days after, and five minutes for clocks that differ."""
    root = Authority()
    gate, device = Gate(tmp_path, root), root.device("pump")
    if inside:
        assert gate.verify(device, now=NOW + offset * 86_400)
    else:
        assert "not yet valid, or no longer" == gate.refuses(device, now=NOW + offset * 86_400)


def test_an_authority_that_has_expired(tmp_path: Path) -> None:
    """What it certified is worth nothing any longer."""
    root = Authority(valid=(AT - 5 * DAY, AT - DAY))
    assert "not yet valid, or no longer" == Gate(tmp_path, root).refuses(root.device("pump"))


def _between(*extensions: tuple[x509.ExtensionType, bool]) -> tuple[Authority, Device]:
    root = Authority()
    return root, Authority("between", parent=root, extensions=extensions).device("pump")


@pytest.mark.parametrize(
    ("extensions", "why"),
    [
        ((), "an issuer that is no authority"),
        (((x509.BasicConstraints(ca=False, path_length=None), True),), "an issuer that is no authority"),
        ((AUTHORITY[0], (usage(digital_signature=True), True)), "an authority whose key may not sign certificates"),
        (
            (*AUTHORITY, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)),
            "not for the authentication of clients",
        ),
        (
            (*AUTHORITY, (x509.NameConstraints([x509.DNSName("a.example")], None), False)),
            "extension 2.5.29.30 is not understood",
        ),
        (
            (*AUTHORITY, (x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)),
            "extension 1.2.3.4 is not understood",
        ),
    ],
)
def test_an_issuer_that_may_not_certify(
    tmp_path: Path, extensions: tuple[tuple[x509.ExtensionType, bool], ...], why: str
) -> None:
    """A device's certificate certifies nobody, nor does an authority beyond what it may."""
    root, device = _between(*extensions)
    assert why == Gate(tmp_path, root).refuses(device)


def test_path_length(tmp_path: Path) -> None:
    """A root that allows no authority below it certifies devices only."""
    short = [(x509.BasicConstraints(ca=True, path_length=0), True), AUTHORITY[1]]
    root = Authority(extensions=short)
    gate = Gate(tmp_path, root)
    assert {"pump"} == gate.verify(root.device("pump")).members
    deeper = Authority("between", parent=root).device("pump")
    assert "longer than an authority's path length allows" == gate.refuses(deeper)


@pytest.mark.parametrize(
    ("extensions", "why"),
    [
        (AUTHORITY, "the certificate of an authority, not of a device"),
        (((usage(key_agreement=True), True),), "a key that is not for signatures"),
        (
            ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),),
            "not for the authentication of clients",
        ),
        (
            ((x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),),
            "extension 1.2.3.4 is not understood",
        ),
    ],
)
def test_a_certificate_for_something_else(
    tmp_path: Path, extensions: Sequence[tuple[x509.ExtensionType, bool]], why: str
) -> None:
    """A certificate of a web server or of an authority is not one of a device."""
    root = Authority()
    assert why == Gate(tmp_path, root).refuses(root.device("pump", extensions=extensions))


def test_a_certificate_that_says_little(tmp_path: Path) -> None:
    """No extensions at all, and one that is not understood but not critical, are what many devices have."""
    root = Authority()
    gate = Gate(tmp_path, root)
    assert gate.verify(root.device("pump", extensions=()))
    unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    assert gate.verify(root.device("pump", extensions=[(unknown, False)]))
    constraints = x509.BasicConstraints(ca=False, path_length=None)
    assert gate.verify(root.device("pump", extensions=[(constraints, True), (usage(digital_signature=True), True)]))


def test_the_root_itself(tmp_path: Path) -> None:
    """Whoever holds the root's key is no device, and its certificate is no chain."""
    root = Authority()
    assert "the certificate of an authority, not of a device" == Gate(tmp_path, root).refuses(
        Device(root.key, root.certificate)
    )


def _weak(key: Key) -> Device:
    return Device(key, Authority().certify(key, name("pump")))


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(3, 2048),
        rsa.generate_private_key(65537, 1024),  # noqa: S505 - it is to be refused
    ],
    ids=["p384", "secp256k1", "exponent", "1024 bits"],
)
def test_a_key_that_is_not_good_enough(tmp_path: Path, key: Key) -> None:
    """Only the kinds that the specification names."""
    root = Authority()
    device = root.device("pump", key=key)
    with pytest.raises(RefusedError, match="a key that is neither EC P-256, RSA with 2048 to 4096 bits, nor Ed25519"):
        Gate(tmp_path, root).open().verify(device.chain, SIGNED, b"", NOW)


def test_a_key_of_an_unknown_kind(tmp_path: Path) -> None:
    """DSA is none of them."""
    root = Authority()
    key = dsa.generate_private_key(2048)
    certificate = root.certify(key, name("pump"))  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match="a key that is neither"):
        Gate(tmp_path, root).open().verify([certificate.public_bytes(DER)], SIGNED, b"", NOW)


@pytest.mark.parametrize("algorithm", ["04", "05"], ids=["md5", "sha1"])
def test_a_broken_hash(tmp_path: Path, algorithm: str) -> None:
    """MD5 and SHA-1 are refused by name, before any signature is looked at."""
    root = Authority(key=KEYS["rsa"]())
    device = root.device("pump")
    weak = device.chain[0].replace(bytes.fromhex("2a864886f70d01010b"), bytes.fromhex(f"2a864886f70d0101{algorithm}"))
    why = "signed by an algorithm that is not accepted"
    assert why == Gate(tmp_path, root).refuses(device, chain=[weak])


def _with_serial(device: Device, first: int) -> bytes:
    serial = device.certificate.serial_number.to_bytes(8)
    return device.chain[0].replace(serial, bytes([first]) + serial[1:])


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_a_negative_serial_number(tmp_path: Path) -> None:
    """RFC 5280 has none, and revocation lists could not name it."""
    root = Authority()
    device = root.device("pump", serial=0x7766554433221100)
    why = "a serial number that is not positive"
    assert why == Gate(tmp_path, root).refuses(device, chain=[_with_serial(device, 0xF7)])


@pytest.mark.parametrize("damage", [b"", b"\x30\x80", b"\x30" * 500, bytes(200), os.urandom(300)])
def test_garbage_in_place_of_a_certificate(tmp_path: Path, damage: bytes) -> None:
    """It is refused as such, at each place in the chain."""
    root = Authority()
    gate, device = Gate(tmp_path, root), Authority("between", parent=root).device("pump")
    for at in range(2):
        chain = [*device.chain[:at], damage, *device.chain[at + 1 :]]
        assert "not a certificate" == gate.refuses(device, chain=chain)


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    """No part of a certificate can be changed, but for the number of unused bits after the signature: they are none."""
    root = Authority(key=ed25519.Ed25519PrivateKey.generate())
    device = root.device("pump", key=ed25519.Ed25519PrivateKey.generate())
    gate, good = Gate(tmp_path, root).open(), device.chain[0]
    proof = device.sign(SIGNED)
    verified = gate.verify([good], SIGNED, proof, NOW)
    for at in range(len(good)):
        changed = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        if at == len(good) - 65:
            with contextlib.suppress(RefusedError):
                assert verified == gate.verify([changed], SIGNED, proof, NOW), "it is the same device to all rules"
        else:
            with pytest.raises(RefusedError):
                gate.verify([changed], SIGNED, proof, NOW)


def test_a_certificate_encoded_differently(tmp_path: Path) -> None:
    """Anybody can find a second ECDSA signature for the same certificate; rules see the same device."""
    root = Authority()
    device = root.device("pump")
    r, s = utils.decode_dss_signature(device.certificate.signature)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    other = utils.encode_dss_signature(r, order - s)
    body = device.certificate.tbs_certificate_bytes + bytes.fromhex("300a06082a8648ce3d040302")
    body += bytes([3, len(other) + 1, 0]) + other
    changed = b"\x30\x82" + len(body).to_bytes(2) + body
    gate = Gate(tmp_path, root)
    assert changed != device.chain[0]
    assert gate.verify(device) == gate.verify(device, chain=[changed])


def test_sizes(tmp_path: Path) -> None:
    """No chain at all, one too long, one with a huge certificate, one out of order."""
    root = Authority()
    gate = Gate(tmp_path, root)
    device = Authority("b", parent=Authority("a", parent=root)).device("pump")
    assert "too many certificates" == gate.refuses(device, chain=[])
    assert "too many certificates" == gate.refuses(device, chain=device.chain * 2)
    assert "a certificate of 8193 bytes, at most 8192" == gate.refuses(device, chain=[bytes(8193)])
    jumbled = [device.chain[0], device.chain[2], device.chain[1]]
    assert "not in order, each issued by the next" == gate.refuses(device, chain=jumbled)
    assert "its issuer is not trusted" == gate.refuses(device, chain=device.chain[:2])


@pytest.mark.parametrize(
    ("common", "why"),
    [
        (["pump", "valve"], "it has not exactly one common name"),
        ([], "it has not exactly one common name"),
        (["pump\0valve"], "it names no member"),
        (["*"], "it names no member"),
        (["pump/#"], "it names no member"),
        (["p\u00fcmp"], "it names no member"),
        (["\u0440ump"], "it names no member"),
        (["pump "], "it names no member"),
    ],
)
def test_common_names_that_name_nobody(tmp_path: Path, common: list[str], why: str) -> None:
    """Only what can be a member id, and only one of it: no wildcard, no zero byte, no letter beyond ASCII."""
    root = Authority()
    names = [x509.NameAttribute(x509.NameOID.COMMON_NAME, one, _validate=False) for one in common]
    key = ec_key()
    device = Device(key, root.certify(key, x509.Name(names)))
    assert why == Gate(tmp_path, root).refuses(device)


@pytest.mark.parametrize(
    ("rule", "names", "members"),
    [
        ("dns:{member}.plant.example", [x509.DNSName("pump.plant.example"), x509.DNSName("x.example")], {"pump"}),
        ("dns:{member}.plant.example", [x509.DNSName("a.plant.example"), x509.DNSName("b.plant.example")], {"a", "b"}),
        ("dns", [x509.DNSName("pump.example")], {"pump.example"}),
        ("uri:urn:dev:{member}", [x509.UniformResourceIdentifier("urn:dev:pump")], {"pump"}),
        ("dns:{member}.plant.example", [x509.DNSName("*.plant.example")], None),
        ("dns:{member}.plant.example", [x509.DNSName(".plant.example")], None),
        ("uri:urn:dev:{member}", [x509.UniformResourceIdentifier("urn:dev:a/b")], None),
        ("uri:urn:dev:{member}", [x509.DNSName("pump")], None),
        ("dns", [], None),
    ],
)
def test_alternative_names(tmp_path: Path, rule: str, names: list[x509.GeneralName], members: set[str] | None) -> None:
    """The part of a name that a pattern leaves open is the member id; the common name is not looked at."""
    root = Authority()
    gate, device = Gate(tmp_path, root, member=rule), root.device("common", names=names)
    if members is None:
        assert "it names no member" == gate.refuses(device)
    else:
        assert members == gate.verify(device).members


def test_too_many_alternative_names(tmp_path: Path) -> None:
    """A certificate that names everybody is not looked at in detail."""
    root = Authority()
    device = root.device("x", names=[x509.DNSName(f"d{number}") for number in range(17)])
    assert "too many names" == Gate(tmp_path, root, member="dns").refuses(device)


@pytest.mark.parametrize("text", ["", "sn", "dns:", "dns:member", "uri:{member}{member}", "cn:{name}"])
def test_a_rule_for_names_that_says_nothing(text: str) -> None:
    """Except for `dns:`, which is `dns`, it is the operator's mistake and named."""
    if text == "dns:":
        assert "dns" == str(MemberName.parse(text))
    else:
        with pytest.raises(UsageError, match="does not say where certificates name members"):
            MemberName.parse(text)


@pytest.mark.parametrize("text", ["cn", "dns:{member}.plant.example", "uri:urn:dev:{member}"])
def test_a_rule_for_names_as_text(text: str) -> None:
    """It reads what it writes."""
    assert text == str(MemberName.parse(text))


@pytest.mark.parametrize("encoding", [PEM, DER])
def test_a_revoked_certificate(tmp_path: Path, encoding: object) -> None:
    """The revoked one is refused, another one of the same authority is not."""
    root = Authority()
    gate, bad, good = Gate(tmp_path, root), root.device("pump"), root.device("valve")
    gate.add_list(root.revoke(bad.certificate).public_bytes(encoding))  # type: ignore[arg-type]
    assert "revoked" == gate.refuses(bad)
    assert {"valve"} == gate.verify(good).members


def test_every_issuer_needs_its_list(tmp_path: Path) -> None:
    """One for the root does not tell what the authority below has revoked; one file may hold both."""
    root = Authority()
    between = Authority("between", parent=root)
    device = between.device("pump")
    gate = Gate(tmp_path, root)
    path = gate.add_list(root.revoke().public_bytes(PEM))
    assert "no valid revocation list of its issuer" == gate.refuses(device)
    path.write_bytes(root.revoke().public_bytes(PEM) + between.revoke().public_bytes(PEM))
    assert {"pump"} == gate.verify(device).members
    path.write_bytes(root.revoke(between.certificate).public_bytes(PEM) + between.revoke().public_bytes(PEM))
    assert "revoked" == gate.refuses(device)


@pytest.mark.parametrize(
    ("since", "until"), [(AT - 3 * DAY, AT - dt.timedelta(seconds=1)), (AT + DAY, AT + 2 * DAY)], ids=["late", "early"]
)
def test_a_list_that_is_not_of_today(tmp_path: Path, since: dt.datetime, until: dt.datetime) -> None:
    """It lets nobody in: what it does not name yet may have been revoked."""
    root = Authority()
    gate = Gate(tmp_path, root)
    gate.add_list(root.revoke(since=since, until=until).public_bytes(DER))
    assert "no valid revocation list of its issuer" == gate.refuses(root.device("pump"))


def test_a_list_by_somebody_else(tmp_path: Path) -> None:
    """One that another key has signed under the authority's name counts for nothing."""
    root = Authority()
    gate = Gate(tmp_path, root)
    gate.add_list(Authority().revoke().public_bytes(DER))
    assert "no valid revocation list of its issuer" == gate.refuses(root.device("pump"))


def test_an_authority_that_may_sign_no_lists(tmp_path: Path) -> None:
    """Its key usage says so."""
    root = Authority(extensions=[AUTHORITY[0], (usage(key_cert_sign=True), True)])
    gate = Gate(tmp_path, root)
    gate.add_list(root.revoke().public_bytes(DER))
    assert "no valid revocation list of its issuer" == gate.refuses(root.device("pump"))


def test_files_that_change(tmp_path: Path) -> None:
    """They are read again; one that cannot be read leaves the former in force."""
    root, other = Authority(), Authority("other")
    gate, device = Gate(tmp_path, root), root.device("pump")
    path = gate.add_list(root.revoke().public_bytes(DER))
    certificates = gate.open()

    def allowed(device: Device) -> bool:
        try:
            certificates.verify(device.chain, SIGNED, device.sign(SIGNED), NOW)
        except RefusedError:
            return False
        return True

    assert allowed(device)
    path.write_bytes(b"half a list")
    assert allowed(device)
    path.write_bytes(root.revoke(device.certificate).public_bytes(DER))
    assert not allowed(device)
    path.unlink()
    assert not allowed(device), "a list that is gone goes on counting"
    path.write_bytes(root.revoke().public_bytes(PEM) + other.revoke().public_bytes(PEM))
    gate.bundle.write_bytes(other.pem)
    assert [False, True] == [allowed(device), allowed(other.device("pump"))]


@pytest.mark.parametrize(
    ("bundle", "crl", "match"),
    [
        (None, None, "ca.pem: No such file"),
        (b"nothing", None, "ca.pem: it has to hold certificates in PEM"),
        (b"", None, "ca.pem: it has to hold certificates in PEM"),
        ("device", None, "ca.pem: CN=pump,O=plant: an issuer that is no authority"),
        ("root", b"nothing", "0.crl: this is no certificate revocation list"),
        ("root", "partial", "has the extension 2.5.29.28: partial lists are not supported"),
    ],
)
def test_files_that_cannot_be_used(
    tmp_path: Path, bundle: bytes | str | None, crl: bytes | str | None, match: str
) -> None:
    """At the start the operator is told which file, and why."""
    root = Authority()
    gate = Gate(tmp_path, root)
    scope = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)  # noqa: FBT003 - its own order
    partial = root.revoke(extensions=[(scope, True)]).public_bytes(DER)
    contents = {"root": root.pem, "device": root.device("pump").certificate.public_bytes(PEM), "partial": partial}
    if bundle is None:
        gate.bundle.unlink()
    else:
        gate.bundle.write_bytes(contents[bundle] if isinstance(bundle, str) else bundle)
    if crl is not None:
        gate.add_list(contents[crl] if isinstance(crl, str) else crl)
    with pytest.raises(UsageError, match=match):
        gate.open()


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory, a file that is too large, and one whose list is damaged inside."""
    gate = Gate(tmp_path, Authority())
    monkeypatch.setattr("brokerkm.admission.certificates.MAX_FILE", 10)
    with pytest.raises(UsageError, match=r"ca\.pem: more than 10 bytes"):
        gate.open()
    gate.bundle.unlink()
    gate.bundle.mkdir()
    with pytest.raises(UsageError, match=r"ca\.pem: Is a directory"):
        gate.open()


def test_a_list_signed_by_another_kind_of_key(tmp_path: Path) -> None:
    """It says it is the authority's, but is signed by an algorithm that its key does not know."""
    root = Authority()
    gate = Gate(tmp_path, root)
    gate.add_list(Authority(key=KEYS["rsa"]()).revoke().public_bytes(DER))
    assert "no valid revocation list of its issuer" == gate.refuses(root.device("pump"))
    bare = Authority("bare", extensions=[AUTHORITY[0]])
    gate = Gate(tmp_path, bare)
    gate.add_list(bare.revoke().public_bytes(DER))
    assert {"pump"} == gate.verify(bare.device("pump")).members
