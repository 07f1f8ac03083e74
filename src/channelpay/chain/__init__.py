"""The chain's side: the only part that imports web3.

Import from the modules, so that a program that needs no chain does not wait for web3:
``connection.connect``, ``contract.PaymentChannelsContract``, ``sender.Sender``,
``outgoing.TransactionSender``, ``events.EventReader``, ``deploy.deploy``.
"""
