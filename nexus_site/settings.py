"""Settings, typed, from the environment (``NEXUS_*``, ``DATABASE_URL``, ``REDIS_URL``).

Everything has a default that works on one machine with nothing installed: SQLite, Huey on
SQLite, channels in the process. ``docs/reference/settings.md`` describes each.
"""

from __future__ import annotations

import os
import secrets
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal

import dj_database_url
from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

BASE_DIR = Path(__file__).resolve().parent.parent


def default_data_dir() -> Path:
    """``$XDG_DATA_HOME/nexus``, by default ``~/.local/share/nexus``."""
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "nexus"


#: What guests see of their network whatever the host's side is; see ``vms.hypervisors``.
GUEST_NETWORK = IPv4Network("10.0.2.0/24")


def _pool(network: IPv4Network) -> IPv4Network:
    """A network that VMs' /30 networks are taken from."""
    if not network.is_private or network.prefixlen > 24:
        raise ValueError("a private network of at least 256 addresses is needed")
    if network.overlaps(GUEST_NETWORK):
        raise ValueError(f"it overlaps {GUEST_NETWORK}, which guests see as their own")
    return network


class NexusSettings(BaseSettings):
    """What can be set from outside; times are in seconds, sizes in MiB."""

    model_config = SettingsConfigDict(env_prefix="NEXUS_", frozen=True)

    data_dir: Path = Field(default_factory=default_data_dir)
    host: str = "127.0.0.1"
    port: int = 9600
    debug: bool = False
    allowed_hosts: list[str] = ["localhost", "127.0.0.1", "[::1]"]
    database_url: str = Field(default="", validation_alias="DATABASE_URL")
    redis_url: str = Field(default="", validation_alias="REDIS_URL")
    warm_templates: bool = True  # images that have booted once: later VMs of them resume
    warm_templates_most: int = Field(default=8, ge=0, le=1000)
    workers: int = Field(default=4, ge=1, le=64)
    agent_ready_timeout: float = Field(default=180.0, gt=0)
    heartbeat_interval: float = Field(default=5.0, gt=0)
    heartbeat_timeout: float = Field(default=15.0, gt=0)
    metrics_full_hours: float = Field(default=48.0, gt=0)
    metrics_days: float = Field(default=30.0, gt=0)
    reconcile_interval: float = Field(default=10.0, gt=0)
    shutdown_timeout: float = Field(default=30.0, gt=0)
    script_timeout: float = Field(default=600.0, gt=0, le=1500)
    image_size_mib: int = Field(default=8192, ge=64)
    hypervisor: Literal["auto", "firecracker", "qemu"] = "auto"
    kvm_trial_seconds: float = Field(default=10.0, gt=0)
    network: Annotated[IPv4Network, AfterValidator(_pool)] = IPv4Network("10.213.0.0/16")
    firecracker_releases_url: str = "https://api.github.com"
    anvil_releases_url: str = ""  # of Anvil's release files; empty: nowhere
    anvil_releases_keyring: Path | None = None
    kernel_paths: list[Path] = [Path("/")]  # below which the provider “local” may take kernels
    kernel_releases_url: str = "https://www.kernel.org"
    kernel_sources_url: str = "https://cdn.kernel.org/pub/linux/kernel"
    kernel_keyring: Path | None = None  # OpenPGP certificates; left out, kernel.org's
    guest_kernel_args: str = ""
    log_level: str = "INFO"

    @property
    def run_dir(self) -> Path:
        return self.data_dir / "run"


NEXUS = NexusSettings()
NEXUS.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)


def _secret_key() -> str:
    """The signing key, made on first use and kept in the data directory (0600)."""
    path = NEXUS.data_dir / "secret_key"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text()
    with os.fdopen(fd, "w") as file:
        file.write(secrets.token_urlsafe(50))
    return path.read_text()


def _static_headers(headers: dict[str, str], path: str, url: str) -> None:
    """What SecurityMiddleware says of everything else."""
    headers["X-Content-Type-Options"] = "nosniff"


SECRET_KEY = _secret_key()
DEBUG = NEXUS.debug
ALLOWED_HOSTS = [*NEXUS.allowed_hosts, NEXUS.host]

INSTALLED_APPS = [
    "nexus_site.apps.NexusAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "servestatic.runserver_nostatic",
    "django.contrib.staticfiles",
    "channels",
    "django_htmx",
    "ninja",
    "huey.contrib.djhuey",
    "nexus_site.core",
    "guest_agent",
    "images",
    "drives",
    "builds",
    "vms",
    "nexus_site.apps.NexusSiteConfig",
]

MIDDLEWARE = [  # all of them synchronous; nexus_site/handler.py serves static files before them
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "nexus_site.middleware.CallerMiddleware",
    "nexus_site.middleware.ErrorPageMiddleware",
]

ROOT_URLCONF = "nexus_site.urls"
ASGI_APPLICATION = "nexus_site.asgi.application"
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "nexus_site.context.nexus",
            ],
            "builtins": ["nexus_site.templatetags.nexus"],
        },
    }
]

DATABASES: dict[str, Any] = {
    "default": dj_database_url.parse(NEXUS.database_url, conn_max_age=600, conn_health_checks=True)
    if NEXUS.database_url
    else {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": NEXUS.data_dir / "nexus.db",
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": (
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
                "PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY;"
            ),
        },
        "TEST": {"NAME": NEXUS.data_dir / "test.db"},  # a file: threads share it as they do live
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# ``immediate`` is off whatever DEBUG is: jobs belong to the worker.
HUEY: dict[str, Any] = {
    "name": "nexus",
    "huey_class": "huey.RedisHuey" if NEXUS.redis_url else "nexus_site.job_queue.WakingHuey",
    "immediate": False,
    "results": False,
    "consumer": {
        "workers": NEXUS.workers,
        "worker_type": "thread",
        "check_worker_health": True,
    },
}
if NEXUS.redis_url:
    HUEY["connection"] = {"url": NEXUS.redis_url}
else:
    HUEY["filename"] = str(NEXUS.run_dir / "huey.db")
    HUEY["fsync"] = False  # what a power cut takes from the queue, the sweep puts there again

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "overview"
LOGOUT_REDIRECT_URL = "sign-in"
SESSION_COOKIE_AGE = 60 * 60 * 24 * 14
SESSION_COOKIE_NAME = "nexus_session"
CSRF_COOKIE_NAME = "nexus_csrf"
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en-gb"

STATIC_URL = "static/"
STATIC_ROOT = NEXUS.data_dir / "static"
STATICFILES_DIRS = [
    BASE_DIR / "nexus_site" / "assets",
    ("vendor/tabler", BASE_DIR / "node_modules" / "@tabler" / "core" / "dist"),
    ("vendor/htmx", BASE_DIR / "node_modules" / "htmx.org" / "dist"),
    ("vendor/xterm", BASE_DIR / "node_modules" / "@xterm" / "xterm"),
    ("vendor/xterm/fit", BASE_DIR / "node_modules" / "@xterm" / "addon-fit" / "lib"),
    ("vendor/xterm/search", BASE_DIR / "node_modules" / "@xterm" / "addon-search" / "lib"),
    ("vendor/uplot", BASE_DIR / "node_modules" / "uplot" / "dist"),
]
# The npm packages hold a hundred times what pages load.
VENDOR_FILES = {
    "vendor/tabler/css/tabler.min.css",
    "vendor/tabler/css/tabler.min.css.map",
    "vendor/htmx/htmx.min.js",
    "vendor/htmx/htmx.min.js.map",
    "vendor/xterm/css/xterm.css",
    "vendor/xterm/lib/xterm.js",
    "vendor/xterm/lib/xterm.js.map",
    "vendor/xterm/fit/addon-fit.js",
    "vendor/xterm/fit/addon-fit.js.map",
    "vendor/xterm/search/addon-search.js",
    "vendor/xterm/search/addon-search.js.map",
    "vendor/uplot/uPlot.iife.min.js",
    "vendor/uplot/uPlot.min.css",
}
STATICFILES_FINDERS = [
    "nexus_site.finders.ChosenFinder",
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "servestatic.storage.CompressedManifestStaticFilesStorage"},
}
SERVESTATIC_ADD_HEADERS_FUNCTION = _static_headers
ICONS_DIR = BASE_DIR / "node_modules" / "@tabler" / "icons" / "icons"

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname:<7} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": NEXUS.log_level},
    "loggers": {
        "huey": {"level": "WARNING"},
        "uvicorn": {"level": "WARNING"},
        "django.request": {"level": "ERROR"},
        "qemu.qmp": {"level": "ERROR"},
    },
}
