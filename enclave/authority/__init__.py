"""Who may do what with which item."""

from enclave.authority.authorizer import Action, Authorizer
from enclave.authority.owner_only import OwnerOnly
from enclave.authority.principal import Principal

__all__ = ["Action", "Authorizer", "OwnerOnly", "Principal"]
