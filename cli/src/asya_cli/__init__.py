"""`asya`: run an actor on a laptop, look into its state, start an actor of one's own.

The one room that knows all the others. What a cluster does with a manifest is done here with processes: the same
environment (`asya_contract.env`), the same programs, the same prefix.
"""
