"""URLs whose ?query may be a signature: how they are shown, and what of them names the data.

A signed URL is a key to its file for as long as it is valid, so no query of a web address and no
password is ever printed or written: not in messages (errors.py), recorded commands
(environment.py), configs (workdir.py) or plans.
"""

import posixpath
import re
from urllib.parse import unquote

# What begins a SPEC (docs/data.md), and so ends the one before a + or a comma.
SPEC_BEGINS = r"faces(?=[:+,]|$)|tfds:|[A-Za-z][\w.-]*://|/|\.{1,2}/|~"
ENDS = rf"[+,](?:{SPEC_BEGINS})|:(?:images|crop)=|[:;,]?(?:[\s\"'<>]|$)"
QUERY = re.compile(rf"(https?://[^\s\"'<>?]*)\?[^\s\"'<>]*?(?={ENDS})")
PASSWORD = re.compile(r"://[^/\s\"'@:]*:[^/\s\"'@]*@")

# Parameters of signatures, in lower case: of AWS (two versions), Google and CloudFront; and of
# Azure, whose short names count beside "sig" only.
SIGNED = re.compile(
    r"x-(amz|goog)-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id"
)
AZURE = "sig se st sp sv sr spr sip si ss srt sdd scid saoid suoid skoid sktid skt ske sks skv"


def public(text: str) -> str:
    """The text with the queries and passwords of all URLs in it left out.

    >>> public("https://host/a.rec?sig=s3cr3t+faces: not there")
    'https://host/a.rec+faces: not there'
    """
    return PASSWORD.sub("://", QUERY.sub(r"\1", text))


def split_query(url: str) -> tuple[str, str]:
    """A web address without its ?query, and the query; other URLs have none."""
    at = url.find("?") if url.startswith(("http://", "https://")) else -1
    return (url, "") if at < 0 else (url[:at], url[at:])


def folder_url(url: str) -> str:
    """The URL of the folder that a URL's file lies in."""
    return posixpath.dirname(split_query(url)[0])


def unsigned(url: str) -> str:
    """What stays the same of a URL when its signature is renewed.

    >>> unsigned("https://host/a.rec?versionId=2&X-Amz-Signature=abc&X-Amz-Expires=60")
    'https://host/a.rec?versionId=2'
    """
    bare, query = split_query(url)
    fields = [field for field in query[1:].split("&") if field]
    names = [unquote(field.partition("=")[0]).lower() for field in fields]
    azure = set(AZURE.split()) if "sig" in names else set()
    kept = [
        field
        for field, name in zip(fields, names, strict=True)
        if not SIGNED.fullmatch(name) and name not in azure
    ]
    return bare + ("?" + "&".join(kept) if kept else "")
