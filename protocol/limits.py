"""Every limit of the protocol, in one place.

The tables in protocol/spec/*.md repeat these numbers and a test compares them.
Tests send limit + 1.
"""

from typing import Final

# codec and framing (10-codec.md)
FRAME_SIZE_MAX: Final = 256 * 1024  # bytes of one control frame
DEPTH_MAX: Final = 16  # containers within containers
NODES_MAX: Final = 10_000  # values in one frame, keys and containers included

# envelopes and names (20-envelopes.md)
NETWORK_SIZE_MAX: Final = 32  # bytes of a network id
TYPE_SIZE_MAX: Final = 32  # bytes of a signed type's name
LIFETIME_MS_MAX: Final = 600_000  # CFP, proposal, award: issued to expires
SKEW_MS_MAX: Final = 60_000  # tolerance beyond the clock offset learned at hello
NUMBER_MAX: Final = 10**15  # of any count, price or time in a signed thing: JSON holds it

# the end of a key (22-lifecycle.md)
STATEMENT_SIZE_MAX: Final = 1_024  # bytes of one statement's envelope
STATEMENT_NAME_SIZE: Final = 8  # bytes of its hash that name it in a comparison
STATEMENTS_MAX: Final = 2_048  # that a node keeps
STATEMENTS_OF_KEY_MAX: Final = 2  # of one key: two that differ say all there is to say
STATEMENTS_TOLD_MAX: Final = 64  # in one message
ROTATIONS_MAX: Final = 8  # that are followed from a key to its newest heir
ROTATED_LINKS_MS: Final = 30 * 24 * 3_600_000  # links by a key with an heir count so long
REASON_SIZE_MAX: Final = 200  # characters

# app keys (24-app-keys.md)
CERTIFICATE_SIZE_MAX: Final = 1_024  # bytes of one certificate's envelope
CERTIFICATE_LIFETIME_MS_MAX: Final = 366 * 24 * 3_600_000
PURPOSES_MAX: Final = 8  # of one certificate
APP_NAME_SIZE_MAX: Final = 100  # characters
PASS_SIZE_MAX: Final = 2_048  # bytes of one pass's envelope
PASS_LIFETIME_MS_MAX: Final = 600_000  # issued to expires

# membership and invites (25-membership.md)
CHAIN_LINKS_MAX: Final = 8  # invitations from the founder to a member
CHAIN_ROTATIONS_MAX: Final = 16  # shown with it, for keys in it that have ended
LINK_SIZE_MAX: Final = 2 * 1024  # bytes of one link's envelope
LINK_LIFETIME_MS_MAX: Final = 366 * 24 * 3_600_000
LINK_SKEW_MS_MAX: Final = 24 * 3_600_000  # a year's link needn't fail for a wrong clock
INVITE_ID_SIZE: Final = 8
INVITE_SECRET_SIZE: Final = 16
INVITE_ADDRESSES_MAX: Final = 4
INVITE_TOKEN_SIZE_MAX: Final = 2 * 1024  # characters

# capability records (30-records.md)
RECORD_SIZE_MAX: Final = 64 * 1024  # bytes of one signed record in a catalogue
RECORD_LIFETIME_MS_MAX: Final = 24 * 3_600_000
RECORD_AHEAD_MS_MAX: Final = 600_000  # how far ahead its node's clock may be
CAPABILITIES_MAX: Final = 32  # in one record
CAPABILITY_NAME_SIZE_MAX: Final = 96
DESCRIPTION_SIZE_MAX: Final = 1_000
SCHEMA_SIZE_MAX: Final = 8 * 1024  # bytes of one JSON Schema
EXAMPLES_MAX: Final = 4
EXAMPLE_SIZE_MAX: Final = 2 * 1024
CHECK_KINDS_MAX: Final = 8  # that a capability is made for
ADDRESSES_MAX: Final = 16
ADDRESS_SIZE_MAX: Final = 256
CLAIM_LIFETIME_MS: Final = 7 * 24 * 3_600_000  # from when it was measured

# what a name costs (32-work.md)
WORK_N: Final = 2**14  # scrypt's cost: with r, 16 MiB
WORK_R: Final = 8  # scrypt's block size
WORK_NONCE_SIZE: Final = 8  # bytes
WORK_BITS_MAX: Final = 24  # zero bits that may be asked for: some days of one core

# task graphs (40-graphs.md)
SUBTASKS_MAX: Final = 200
BATCHES_MAX: Final = 1_000  # in one job, all maps together
FAN_OUT_MAX: Final = 32  # batches of one sub-task that run at once
INPUTS_MAX: Final = 32  # input fields of one sub-task
GRAPH_DEPTH_MAX: Final = 64  # longest path
INSTEAD_MAX: Final = 4  # capabilities that may do a sub-task instead
CHECKS_MAX: Final = 16  # checks of one sub-task
JUDGES_MAX: Final = 3  # of one panel
QUESTION_SIZE_MAX: Final = 2_000  # characters that a panel is asked
HOPS_MAX: Final = 8  # brokers below brokers

# sessions (50-sessions.md)
INLINE_SIZE_MAX: Final = 16 * 1024  # a payload in a message; larger is an artifact
REQUESTS_MAX: Final = 1_024  # open requests of one side of a session
CREDIT_INITIAL: Final = 16  # stream items a replier may send before a grant
CREDIT_MAX: Final = 1_024
HEARTBEAT_MS: Final = 3_000  # after this much silence, ping
SILENCE_MS_MAX: Final = 9_000  # after this much, the peer is gone
HELLO_MS_MAX: Final = 5_000  # from the first byte to a whole hello
VERSIONS_MAX: Final = 16
FEATURES_MAX: Final = 64

# contracts (60-contracts.md)
HEADER_TEXT_SIZE_MAX: Final = 256  # characters of a job, sub-task, key or trace context
BINDINGS_MAX: Final = 32  # input fields of an award
PARTS_MAX: Final = 256  # pieces that one field is put together from
PROGRESS_SIZE_MAX: Final = 4 * 1024
SPENT_ROWS_MAX: Final = 64  # of a receipt: who did what below
SPENT_TEXT_SIZE_MAX: Final = 512  # characters of the way to a sub-task below

# artifacts (70-artifacts.md)
ARTIFACT_SIZE_MAX: Final = 4 * 1024**3
CHUNK_SIZE: Final = 256 * 1024

# journals (80-journal.md)
EVENT_SIZE_MAX: Final = 240 * 1024  # so that a frame holds it, wrapped
EVENTS_MAX: Final = 100_000  # of one segment
SEGMENTS_MAX: Final = 64
REPLANS_MAX: Final = 3  # patches of one job's plan

# mail (90-mail.md)
LETTER_BODY_SIZE_MAX: Final = 64 * 1024
LETTER_SUBJECT_SIZE_MAX: Final = 200  # characters
LETTER_KIND_SIZE_MAX: Final = 64  # characters
LETTER_SIZE_MAX: Final = 80 * 1024  # bytes of one letter with its envelope
LETTER_LIFETIME_MS_MAX: Final = 30 * 24 * 3_600_000
LETTER_SKEW_MS_MAX: Final = 24 * 3_600_000  # days of life needn't fail for a wrong clock
LETTER_ACK_SIZE_MAX: Final = 4 * 1024  # bytes of one acknowledgement with its envelope
SEALED_SIZE_MAX: Final = 100 * 1024  # bytes of a sealed letter, the sender's chain included
DEPOSITS_MAX: Final = 32  # deposits or acknowledgements that one request names
COLLECTED_BYTES_MAX: Final = 200 * 1024  # sealed letters in one answer

# orders (92-orders.md)
ORDER_LIFETIME_MS_MAX: Final = 7 * 24 * 3_600_000  # issued to deadline
ENCLOSED_MAX: Final = 64  # artifacts in one order

# reputation (95-reputation.md)
HALF_SIZE_MAX: Final = 10 * 1024  # bytes of one half of a receipt that is told others
TOLD_MAX: Final = 64  # finished contracts in one answer
TOLD_BYTES_MAX: Final = 200 * 1024  # both halves of all of them
CURSOR_SIZE_MAX: Final = 128  # characters of where the next answer goes on
PROOFS_MAX: Final = 8  # proofs of equivocation in one request

# charters and epochs (85-failover.md)
CHARTER_SIZE_MAX: Final = 4 * 1024  # bytes of its envelope
GRANT_SIZE_MAX: Final = 1024  # bytes of its envelope
STANDBYS_MIN: Final = 2  # with one, no majority is left when a member is gone
STANDBYS_MAX: Final = 6
EPOCH_LEASE_MS_MIN: Final = 1_000
EPOCH_LEASE_MS_MAX: Final = 600_000
CHARTER_LIFETIME_MS_MAX: Final = 8 * 24 * 3_600_000
