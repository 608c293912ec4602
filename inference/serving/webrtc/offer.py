"""A client's SDP offer, checked before anything is built from it: one Opus track, and at most one data channel."""

from __future__ import annotations

from aiortc.sdp import SessionDescription

from ..protocol.errors import RequestError

_CANDIDATES = 32


def checked(sdp: str, candidates: bool) -> str:
    """The offer as it is to be answered.

    Args:
        candidates: whether to send to the addresses that it names. Otherwise these are left out: nobody can make us
            send to any address, and the client's own packets show where it is.

    Raises:
        RequestError: it cannot be read, or asks for what is not served.
    """
    left, kept = _CANDIDATES if candidates else 0, list[str]()
    for line in sdp.splitlines():
        if line.startswith("a=candidate:"):
            if not left or ".local " in line:
                continue
            left -= 1
        if candidates or line != "a=end-of-candidates":
            kept.append(line)
    offer = "\r\n".join(kept) + "\r\n"
    try:
        media = SessionDescription.parse(offer).media
    except Exception:  # it names many kinds, for whatever it stumbles over
        raise RequestError("the SDP offer cannot be read", "invalid_value", "sdp") from None
    kinds = [each.kind for each in media]
    if kinds.count("audio") != 1 or kinds.count("application") > 1 or len(set(kinds) - {"audio", "application"}):
        what = f"the SDP offer has the media {', '.join(kinds)[:80] or 'none'}; it must have one of audio"
        raise RequestError(f"{what}, and at most one data channel", "invalid_value", "sdp")
    codecs = [codec.mimeType.lower() for each in media if each.kind == "audio" for codec in each.rtp.codecs]
    if "audio/opus" not in codecs:
        raise RequestError("the SDP offer has no Opus among its audio codecs", "invalid_value", "sdp")
    if not all(each.dtls is not None and each.dtls.fingerprints for each in media):
        raise RequestError("the SDP offer has no fingerprint of its certificate", "invalid_value", "sdp")
    return offer
