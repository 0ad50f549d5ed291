from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODE_UNSPECIFIED: _ClassVar[Code]
    CODE_CLOSED: _ClassVar[Code]
    CODE_VERSION: _ClassVar[Code]
    CODE_UNAUTHENTICATED: _ClassVar[Code]
    CODE_FORBIDDEN: _ClassVar[Code]
    CODE_PROTOCOL: _ClassVar[Code]
    CODE_LIMIT: _ClassVar[Code]
    CODE_DRAINING: _ClassVar[Code]
    CODE_INTERNAL: _ClassVar[Code]
CODE_UNSPECIFIED: Code
CODE_CLOSED: Code
CODE_VERSION: Code
CODE_UNAUTHENTICATED: Code
CODE_FORBIDDEN: Code
CODE_PROTOCOL: Code
CODE_LIMIT: Code
CODE_DRAINING: Code
CODE_INTERNAL: Code

class FromClient(_message.Message):
    __slots__ = ("frames", "hello", "dns_question", "ping", "pong", "goodbye")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    DNS_QUESTION_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    frames: bytes
    hello: Hello
    dns_question: DnsQuestion
    ping: Ping
    pong: Ping
    goodbye: Goodbye
    def __init__(self, frames: _Optional[bytes] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., dns_question: _Optional[_Union[DnsQuestion, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., pong: _Optional[_Union[Ping, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class FromManager(_message.Message):
    __slots__ = ("frames", "welcome", "dns_answer", "ping", "pong", "goodbye", "cluster", "drain", "namespaces_change")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    DNS_ANSWER_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_CHANGE_FIELD_NUMBER: _ClassVar[int]
    frames: bytes
    welcome: Welcome
    dns_answer: DnsAnswer
    ping: Ping
    pong: Ping
    goodbye: Goodbye
    cluster: ClusterInfo
    drain: Drain
    namespaces_change: NamespacesChange
    def __init__(self, frames: _Optional[bytes] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., dns_answer: _Optional[_Union[DnsAnswer, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., pong: _Optional[_Union[Ping, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., cluster: _Optional[_Union[ClusterInfo, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., namespaces_change: _Optional[_Union[NamespacesChange, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "protocol_minimum", "product_version", "capabilities", "token", "resume")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MINIMUM_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_VERSION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    protocol_minimum: int
    product_version: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    token: str
    resume: Resume
    def __init__(self, protocol: _Optional[int] = ..., protocol_minimum: _Optional[int] = ..., product_version: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., token: _Optional[str] = ..., resume: _Optional[_Union[Resume, _Mapping]] = ...) -> None: ...

class Resume(_message.Message):
    __slots__ = ("session", "secret", "received")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    secret: bytes
    received: int
    def __init__(self, session: _Optional[bytes] = ..., secret: _Optional[bytes] = ..., received: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "product_version", "capabilities", "session", "secret", "resumed", "received", "flow_limit", "cluster")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PRODUCT_VERSION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    FLOW_LIMIT_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    product_version: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    session: bytes
    secret: bytes
    resumed: bool
    received: int
    flow_limit: int
    cluster: ClusterInfo
    def __init__(self, protocol: _Optional[int] = ..., product_version: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., session: _Optional[bytes] = ..., secret: _Optional[bytes] = ..., resumed: _Optional[bool] = ..., received: _Optional[int] = ..., flow_limit: _Optional[int] = ..., cluster: _Optional[_Union[ClusterInfo, _Mapping]] = ...) -> None: ...

class ClusterInfo(_message.Message):
    __slots__ = ("subnets", "namespaces", "cluster_domain", "manager_namespace", "icmp", "probes", "identity")
    SUBNETS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACES_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    MANAGER_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ICMP_FIELD_NUMBER: _ClassVar[int]
    PROBES_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    subnets: _containers.RepeatedCompositeFieldContainer[Subnet]
    namespaces: _containers.RepeatedScalarFieldContainer[str]
    cluster_domain: str
    manager_namespace: str
    icmp: bool
    probes: _containers.RepeatedCompositeFieldContainer[Probe]
    identity: str
    def __init__(self, subnets: _Optional[_Iterable[_Union[Subnet, _Mapping]]] = ..., namespaces: _Optional[_Iterable[str]] = ..., cluster_domain: _Optional[str] = ..., manager_namespace: _Optional[str] = ..., icmp: _Optional[bool] = ..., probes: _Optional[_Iterable[_Union[Probe, _Mapping]]] = ..., identity: _Optional[str] = ...) -> None: ...

class NamespacesChange(_message.Message):
    __slots__ = ("added", "removed")
    ADDED_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    added: _containers.RepeatedScalarFieldContainer[str]
    removed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, added: _Optional[_Iterable[str]] = ..., removed: _Optional[_Iterable[str]] = ...) -> None: ...

class Probe(_message.Message):
    __slots__ = ("address", "port")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    address: bytes
    port: int
    def __init__(self, address: _Optional[bytes] = ..., port: _Optional[int] = ...) -> None: ...

class Subnet(_message.Message):
    __slots__ = ("address", "prefix_length")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    address: bytes
    prefix_length: int
    def __init__(self, address: _Optional[bytes] = ..., prefix_length: _Optional[int] = ...) -> None: ...

class DnsQuestion(_message.Message):
    __slots__ = ("id", "message", "timeout")
    ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    id: int
    message: bytes
    timeout: int
    def __init__(self, id: _Optional[int] = ..., message: _Optional[bytes] = ..., timeout: _Optional[int] = ...) -> None: ...

class DnsAnswer(_message.Message):
    __slots__ = ("id", "message", "error", "server", "elapsed")
    ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    id: int
    message: bytes
    error: str
    server: str
    elapsed: int
    def __init__(self, id: _Optional[int] = ..., message: _Optional[bytes] = ..., error: _Optional[str] = ..., server: _Optional[str] = ..., elapsed: _Optional[int] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("timeout", "reason")
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    timeout: int
    reason: str
    def __init__(self, timeout: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("code", "reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: Code
    reason: str
    def __init__(self, code: _Optional[_Union[Code, str]] = ..., reason: _Optional[str] = ...) -> None: ...
