"""Who can be believed, held against the literature: a market of buyers and of agents that lie.

Time is rounds: in each, every buyer has one task.  A policy chooses whom to ask, whom to ask
as well, and what to accept; it sees answers, never whether they are right.  Of a result that
was accepted and is wrong the buyer hears later, sometimes.  The same agents, the same lies
and the same chance are given to every policy.

What is left out: latency, churn, availability, answers that can't be compared, attackers
that learn, and inviters that are taken over.
"""
