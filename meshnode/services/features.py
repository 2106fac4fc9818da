"""What a node is for others beside its agents, as its record says."""

from meshnode.config import NodeConfig
from meshnode.services import mail, standbys


def features_of(config: NodeConfig) -> tuple[str, ...]:
    """Return what the owner lets the node do for others."""
    wanted = {
        mail.FEATURE: config.mailbox.enabled,
        mail.ORDERS_FEATURE: config.orders.enabled,
        standbys.FEATURE: config.standby.enabled,
    }
    return tuple(name for name, enabled in wanted.items() if enabled)
