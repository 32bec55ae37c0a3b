"""Passwords and keys in URLs are hidden wherever a URL is shown."""

from pathlib import Path

import pytest
from sqlalchemy import make_url

from leadline.errors import StoreError
from leadline.running.clusters.slurm import check_store
from leadline.store.connect import display_address
from leadline.store.secrets import has_secrets, hide_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:x@host:5432/name", "postgresql://me:***@host:5432/name"),
        ("postgresql://:x@host/name", "postgresql://:***@host/name"),
        ("me:x/y@z@host", "me:***@host"),
        ("https://host/a?sig=x&v=1", "https://host/a?sig=***&v=1"),
        ("s3://b/a?X-Amz-Signature=x&X-Amz-Credential=y", "s3://b/a?X-Amz-Signature=***&X-Amz-Credential=***"),
        ("GET 'https://host/a?token=x' failed: 403", "GET 'https://host/a?token=***' failed: 403"),
        ("ftp://a:x@h/b and ftp://c:y@h/d", "ftp://a:***@h/b and ftp://c:***@h/d"),
    ],
)
def test_secrets_are_hidden(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown and has_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me@host:5432/name?sslmode=verify-full&options=-c%20search_path%3Da",
        "s3://bucket/a:b/c",
        "file:///home/me/lab@home",
        "sqlite:////data/leadline.db",
        "/home/me/a:b/c",
    ],
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert hide_secrets(text) == text and not has_secrets(text)


def test_an_address_is_shown_without_passwords() -> None:
    url = make_url("postgresql+psycopg://me:secret@host/name?password=secret&connect_timeout=3")
    assert display_address(url) == "postgresql+psycopg://me:***@host/name?connect_timeout=3&password=***"


@pytest.mark.parametrize("query", ["password=secret", "sslmode=require&sslpassword=secret"])
def test_no_password_goes_into_a_slurm_script(tmp_path: Path, query: str) -> None:
    line = r"--store: the password would be readable in the job files; .*PGPASSWORD.*~/\.pgpass"
    with pytest.raises(StoreError, match=line) as caught:
        check_store(f"postgresql://host/name?{query}", tmp_path, 2)
    assert "secret" not in str(caught.value)
    check_store("postgresql://me@host/name?sslmode=require", tmp_path, 2)
