"""Every exception that Hive raises on purpose, in one tree.

HiveError
├── LocalError            the caller or the user of this process made a mistake
│   ├── ConfigError           exit 2   a flag, variable, config file or manifest value is not usable
│   ├── IdentityError         exit 3   the key file is unusable, or another running agent holds it
│   ├── StorageError          exit 4   the state directory cannot be written: full, missing, not ours
│   └── AddressInUse          exit 5   a port that we were told to listen on is taken
├── CoordinatorError      the coordinator, or what it says
│   ├── CoordinatorUnreachable  exit 10  no answer, and no cached manifest to go on with
│   ├── UnknownExperiment       exit 11  it answers, and has no such experiment
│   ├── ManifestRejected        exit 12  the manifest's signature, key, revision or content is not acceptable
│   └── NotAdmitted             exit 14  the experiment admits by invitation or approval, and we have neither
├── ModelUnavailable      exit 15  nobody who could be asked has the trunk, or too few experts are live
├── JoinError             exit 13  no peer of the overlay could be reached
├── RemoteError           another peer's fault
│   ├── ProtocolViolation        it broke the protocol; its connection is closed with this error's name
│   ├── HandshakeRejected        identity, experiment, version or channel binding did not match
│   │   └── AdmissionRejected        its certificate is missing, somebody else's, over, or not the coordinator's
│   ├── LinkClosed               the connection ended while something was in progress
│   ├── CallTimeout              no answer before the deadline
│   ├── CallCancelled            the caller gave the call up
│   ├── CallRefused              it answered with an error: `code` says which
│   └── NotReachable             no connection to that peer could be made
└── RecordError           a DHT record is badly formed, badly signed, too large, stale or over quota

`exit_code` is what the `hive-agent` process ends with when the error reaches the top.
`str(error)` is one sentence for a person, and says what to do where something can be done.
"""

from __future__ import annotations


class HiveError(Exception):
    """Base of all errors of this project."""

    exit_code = 1


class LocalError(HiveError):
    """The caller of this code, or the user of this process, made a mistake."""


class ConfigError(LocalError):
    """A flag, a variable, a config file or a manifest value is not usable."""

    exit_code = 2


class IdentityError(LocalError):
    """The key file is unusable, or another running agent holds it."""

    exit_code = 3


class StorageError(LocalError):
    """The state directory cannot be written."""

    exit_code = 4


class AddressInUse(LocalError):
    """A port that we were told to listen on is taken."""

    exit_code = 5


class CoordinatorError(HiveError):
    """The coordinator, or what it says, stands in the way."""


class CoordinatorUnreachable(CoordinatorError):
    """No answer, and no cached manifest to go on with."""

    exit_code = 10


class UnknownExperiment(CoordinatorError):
    """The coordinator answers, and has no such experiment."""

    exit_code = 11


class ManifestRejected(CoordinatorError):
    """The manifest's signature, key, revision or content is not acceptable."""

    exit_code = 12


class NotAdmitted(CoordinatorError):
    """The experiment admits by invitation or approval, and this agent has neither."""

    exit_code = 14


class ModelUnavailable(HiveError):
    """Nobody who could be asked has the experiment's model: no trainer, or too few live experts."""

    exit_code = 15


class JoinError(HiveError):
    """No peer of the overlay could be reached."""

    exit_code = 13


class RemoteError(HiveError):
    """Another peer's fault. Never ends this process."""


class ProtocolViolation(RemoteError):
    """A peer broke the protocol. Its connection is closed with this name, and nothing else happens."""


class HandshakeRejected(RemoteError):
    """Identity, experiment, version or channel binding did not match."""


class AdmissionRejected(HandshakeRejected):
    """A certificate of admission is missing, somebody else's, over, or not the coordinator's."""


class LinkClosed(RemoteError):
    """The connection ended while something was in progress."""


class CallTimeout(RemoteError):
    """No answer came before the call's deadline."""


class CallCancelled(RemoteError):
    """The caller gave the call up."""


class CallRefused(RemoteError):
    """The peer answered with an error.

    `code` is a short stable word that programs may compare (for example `inputs-gone`).
    """

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = message


class NotReachable(RemoteError):
    """No connection to that peer could be made."""


class RecordError(HiveError):
    """A DHT record is badly formed, badly signed, too large, stale or over quota."""
