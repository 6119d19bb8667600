"""What a group's key server does by itself: rules on time, on member count, on silence and on incoming webhooks.

Rules are documents of their group, and so is what each remembers of its runs, which is stored in the transaction of
what a run has changed: a due time is acted on once, whichever server is alive. `Automation` runs them, `RuleBook`
writes them down, `hooks` is the webhooks' part of the HTTP API.
"""

from brokerkm.automation.book import RuleBook, RuleInfo, RulesApi
from brokerkm.automation.rule import Evict, Notify, OnCount, OnSilence, OnTime, OnWebhook, Rotate, Rule
from brokerkm.automation.runner import Automation, Run

__all__ = [
    "Automation",
    "Evict",
    "Notify",
    "OnCount",
    "OnSilence",
    "OnTime",
    "OnWebhook",
    "Rotate",
    "Rule",
    "RuleBook",
    "RuleInfo",
    "RulesApi",
    "Run",
]
