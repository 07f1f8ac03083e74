"""Every error that channelpay raises, in one tree.

ChannelPayError
├── InputError                       a value from outside is malformed           exit 2, 400
│   ├── MalformedCredential          the Authorization header does not parse          400
│   ├── CredentialTooLarge           … is over the size limit                         431
│   ├── MethodUnsupported            … is for another payment method or intent        400
│   ├── UnclearRequest               an upstream could read it as another request     400
│   ├── HeadersTooLarge              the head of a request is over the limits         431
│   └── UpgradeRefused               WebSockets are not passed on                     426
├── ConfigError                      a setting is missing or contradicts another exit 2
├── NotFound                         account, channel or file is not there       exit 5, 404
│   ├── NotGenuine                   another contract's code is at an address
│   └── ReceiptNotFound              the channel bought nothing of the kind here
│       └── ReceiptNotYet            … the response goes on                            409
├── NetworkError                     chain or site not reachable: retry later    exit 3, 503
│   ├── WrongChain                   the node serves another chain than expected
│   ├── NodesDisagree                two nodes say different hashes of an old block
│   ├── StoreUnavailable             the payee's books cannot be written now
│   ├── NonceTaken                   another process sends with this nonce
│   ├── RiskLimitReached             too much of a channel is served and not settled
│   ├── ChainBehind                  the chain was not followed for too long
│   ├── PayoutDue                    a network owes a member as much as it may
│   ├── UpstreamDown                 the server behind the proxy gave no answer           502
│   └── UpstreamSlow                 … did not answer in time                             504
├── ChainReverted                    the contract refused a call                 exit 6, 409
├── InsufficientFunds                an account cannot pay a deposit or its gas  exit 6
├── StatementContradicted            a network's statement is not what happened  exit 6, 409
├── ReceiptNotValid                  the payee did not sign this receipt         exit 6, 409
├── WalletRefused                    a hardware wallet did not sign              exit 4
├── BudgetExceeded                   the payer's own limit refuses a payment     exit 4
├── Declined                         whoever was asked at the terminal said no   exit 4
└── PaymentRefused                   the payee does not serve for this payment   exit 4, 402
    ├── PaymentRequired              no payment came with the request
    ├── InvalidChallenge             the challenge is not ours, or was changed
    ├── ChallengeExpired             the challenge is too old
    ├── PriceRaised                  the resource now costs more than the challenge says
    ├── OtherChain                   the credential's source is on another chain
    ├── InvalidSignature             no key signed this voucher in this domain
    │   ├── WrongRecoveryId          v is not 27 or 28, or belongs to another key
    │   └── MalleableSignature       s is in the upper half of the curve's order
    ├── SignerMismatch               a key signed it, but not the channel's signer
    ├── AmountExceedsDeposit         the voucher promises more than the channel holds
    ├── InsufficientBalance          accepted - spent does not cover the price
    │   └── VoucherPublic            it was settled: everybody can read it on the chain
    ├── TooFewConfirmations          the open or top-up is too fresh                  402
    ├── GasNotCarried                the payee does not pay the gas of this one
    ├── IdempotencyKeyReused         the key already bought another resource          409
    ├── TabDue                       what is owed on the tab has to be paid first
    │   └── TabFull                  the tab has no room for this
    ├── PassNotValid                 no pass of this site, or not one for this
    │   ├── PassEnded                its time is over, or it is used up
    │   ├── PassNotCovering          it is for other paths
    │   └── PassSuspended            an old token of it was shown: its owner has to prove itself
    ├── CouponNotValid               no code of this site
    │   ├── CouponUsed               it was redeemed, or as often as one payer may
    │   └── CouponEnded              it is too old, or was revoked
    ├── TooManyAttempts              one payer asked in vain too often                429
    ├── ChannelNotFound              no such channel with this payee                  410
    ├── ChannelClosing               a close is requested                             410
    └── ChannelFinalized             the channel is closed for good                   410

Each class has a ``code`` (stable, kebab-case), a ``title``, an HTTP ``status``, a CLI
``exit_code``, a default ``hint`` that says what to do next, and the problem type of RFC 9457 that
peers know (draft-httpauth-payment-00 and draft-evm-session-00). The HTTP problem body and the CLI
render the same error.
"""

from __future__ import annotations

PROBLEM_BASE = "https://paymentauth.org/problems/"


class ChannelPayError(Exception):
    """Root of the tree.

    ``detail`` says what happened this time; ``context`` holds extra members for machines (camelCase
    names, strings and integers as they go into JSON). Neither ever holds a secret.
    """

    code = "error"
    title = "Error"
    hint: str = ""
    status = 500
    exit_code = 1
    problem = "about:blank"

    def __init__(
        self, detail: str = "", *, hint: str | None = None, **context: str | int | bool
    ) -> None:
        super().__init__(detail or self.title)
        self.detail: str = detail or self.title
        self.context = context
        if hint is not None:
            self.hint = hint

    def as_problem(self) -> dict[str, str | int | bool]:
        """The members of an RFC 9457 problem body, with our ``code`` and ``hint`` added."""
        members: dict[str, str | int | bool] = {
            "type": self.problem,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.hint:
            members["hint"] = self.hint
        return members | self.context


class InputError(ChannelPayError):
    code = "invalid-input"
    title = "Invalid Input"
    status = 400
    exit_code = 2


class MalformedCredential(InputError):
    code = "malformed-credential"
    title = "Malformed Credential"
    hint = "Send 'Authorization: Payment <base64url JSON without padding>', one header only."
    problem = PROBLEM_BASE + "malformed-credential"


class CredentialTooLarge(InputError):
    code = "credential-too-large"
    title = "Credential Too Large"
    hint = "A session credential needs about 1 KiB; leave out what the challenge did not ask for."
    status = 431
    problem = PROBLEM_BASE + "malformed-credential"


class MethodUnsupported(InputError):
    code = "method-unsupported"
    title = "Method Unsupported"
    hint = "Answer one of the challenges in WWW-Authenticate: method evm, intent session."
    problem = PROBLEM_BASE + "method-unsupported"


class UnclearRequest(InputError):
    code = "unclear-request"
    title = "Unclear Request"
    hint = "Ask for the resource by its plain path, such as /articles/one.html."


class HeadersTooLarge(InputError):
    code = "headers-too-large"
    title = "Headers Too Large"
    hint = "Send fewer or shorter headers, cookies included."
    status = 431


class UpgradeRefused(InputError):
    code = "upgrade-refused"
    title = "Upgrade Refused"
    hint = "Use plain HTTP requests; a stream of server-sent events is passed on."
    status = 426


class ConfigError(ChannelPayError):
    code = "config"
    title = "Configuration Error"
    exit_code = 2


class NotFound(ChannelPayError):
    code = "not-found"
    title = "Not Found"
    status = 404
    exit_code = 5


class ReceiptNotFound(NotFound):
    code = "receipt-not-found"
    title = "Receipt Not Found"
    hint = "Check the Idempotency-Key, and whose channel it is. What was given back has none."


class ReceiptNotYet(ReceiptNotFound):
    code = "receipt-not-yet"
    title = "No Receipt Yet"
    hint = "Ask again when the response has ended: then it is known what it cost."
    status = 409


class NotGenuine(NotFound):
    code = "not-genuine"
    title = "Not the Genuine Contract"
    hint = "Use the address that 'channelpay contract address' or 'channelpay dev' prints."


class NetworkError(ChannelPayError):
    code = "network"
    title = "Temporarily Unavailable"
    hint = "Nothing was charged; try again in a few seconds."
    status = 503
    exit_code = 3


class WrongChain(NetworkError):
    code = "wrong-chain"
    title = "Wrong Chain"
    hint = "Point --rpc at a node of the expected chain, or choose that node's with --network."


class NodesDisagree(NetworkError):
    code = "nodes-disagree"
    title = "Nodes Disagree"
    hint = "Nothing is believed until they agree. Find out which node is wrong, and leave it out."


class StoreUnavailable(NetworkError):
    code = "store-unavailable"
    title = "Books Unavailable"


class NonceTaken(NetworkError):
    code = "nonce-taken"
    title = "Nonce Taken"
    hint = "Another process sends with the same account: read the next nonce and sign again."


class RiskLimitReached(NetworkError):
    code = "risk-limit"
    title = "Risk Limit Reached"
    hint = "Nothing was charged. The payee settles soon; try again shortly."


class ChainBehind(NetworkError):
    code = "chain-behind"
    title = "Chain Not Followed"
    hint = "Nothing was charged, and nothing is wrong with your channel; try again shortly."


class PayoutDue(NetworkError):
    code = "payout-due"
    title = "Payout Due"
    hint = "Try again after the network's next payout; your money is not lost."


class UpstreamDown(NetworkError):
    code = "upstream-down"
    title = "Bad Gateway"
    status = 502


class UpstreamSlow(NetworkError):
    code = "upstream-slow"
    title = "Gateway Timeout"
    status = 504


class ChainReverted(ChannelPayError):
    """``error`` is the contract's error name (say ``AmountNotIncreasing``), or empty where the
    chain gave none.
    """

    code = "transaction-reverted"
    title = "Transaction Reverted"
    status = 409
    exit_code = 6
    problem = PROBLEM_BASE + "session/transaction-reverted"

    def __init__(
        self,
        detail: str = "",
        *,
        error: str = "",
        hint: str | None = None,
        **context: str | int | bool,
    ) -> None:
        super().__init__(detail or error, hint=hint, **context)
        self.error = error


class StatementContradicted(ChannelPayError):
    code = "statement-contradicted"
    title = "Statement Contradicted"
    hint = "Keep the file, and ask the network: its signature proves what it said."
    status = 409
    exit_code = 6


class ReceiptNotValid(ChannelPayError):
    code = "receipt-not-valid"
    title = "Receipt Not Valid"
    hint = "It proves nothing: it was changed, or is not by the payee of its channel."
    status = 409
    exit_code = 6


class InsufficientFunds(ChannelPayError):
    code = "insufficient-funds"
    title = "Insufficient Funds"
    hint = "Fund the account, or choose a smaller deposit."
    exit_code = 6


class WalletRefused(ChannelPayError):
    code = "wallet-refused"
    title = "Wallet Refused"
    hint = "Nothing was sent. Run it again, and confirm on the device if you agree."
    exit_code = 4


class BudgetExceeded(ChannelPayError):
    code = "budget-exceeded"
    title = "Over Budget"
    hint = "Raise the limit, if you want to pay this much. Nothing was signed."
    exit_code = 4


class Declined(ChannelPayError):
    code = "declined"
    title = "Declined"
    exit_code = 4


class PaymentRefused(ChannelPayError):
    code = "verification-failed"
    title = "Payment Refused"
    status = 402
    exit_code = 4
    problem = PROBLEM_BASE + "verification-failed"


class PaymentRequired(PaymentRefused):
    code = "payment-required"
    title = "Payment Required"
    hint = "Open a channel to the payee and send a voucher for the price with the request."
    problem = PROBLEM_BASE + "payment-required"


class InvalidChallenge(PaymentRefused):
    code = "invalid-challenge"
    title = "Invalid Challenge"
    hint = "Answer the fresh challenge of this response; echo it unchanged."
    problem = PROBLEM_BASE + "invalid-challenge"


class ChallengeExpired(PaymentRefused):
    code = "payment-expired"
    title = "Challenge Expired"
    hint = "Answer the fresh challenge of this response."
    problem = PROBLEM_BASE + "payment-expired"


class PriceRaised(PaymentRefused):
    code = "payment-insufficient"
    title = "Price Raised"
    hint = "The resource costs more than the challenge you answered; answer the fresh one."
    problem = PROBLEM_BASE + "payment-insufficient"


class OtherChain(PaymentRefused):
    code = "other-chain"
    title = "Other Chain"
    hint = "Sign for the contract and chain that the challenge names, from an account there."
    problem = PROBLEM_BASE + "session/invalid-signature"


class InvalidSignature(PaymentRefused):
    code = "invalid-signature"
    title = "Invalid Signature"
    hint = "Sign the EIP-712 voucher of this channel, contract and chain."
    problem = PROBLEM_BASE + "session/invalid-signature"


class WrongRecoveryId(InvalidSignature):
    code = "wrong-recovery-id"
    title = "Wrong Recovery Id"
    hint = "The last byte of the signature, v, must be the 27 or 28 that recovers the signer."


class MalleableSignature(InvalidSignature):
    code = "malleable-signature"
    title = "Malleable Signature"
    hint = "Use the low-s form of the signature: s' = n - s, v' = 55 - v."


class SignerMismatch(PaymentRefused):
    code = "signer-mismatch"
    title = "Signer Mismatch"
    hint = "Sign with the channel's authorized signer, for this contract and chain."
    problem = PROBLEM_BASE + "session/signer-mismatch"


class AmountExceedsDeposit(PaymentRefused):
    code = "amount-exceeds-deposit"
    title = "Amount Exceeds Deposit"
    hint = "Top the channel up, or wait until what was added is confirmed; then send it again."
    problem = PROBLEM_BASE + "session/amount-exceeds-deposit"


class InsufficientBalance(PaymentRefused):
    code = "insufficient-balance"
    title = "Insufficient Balance"
    hint = "Send a voucher of at least requiredCumulative."
    problem = PROBLEM_BASE + "session/insufficient-balance"


class VoucherPublic(InsufficientBalance):
    code = "voucher-public"
    title = "Voucher Public"
    hint = "Send Payment-Proof with it, or a voucher of at least requiredCumulative."


class TooFewConfirmations(PaymentRefused):
    code = "too-few-confirmations"
    title = "Too Few Confirmations"
    hint = "Wait for the transaction to be confirmed, then send the same request again."


class GasNotCarried(PaymentRefused):
    code = "gas-not-carried"
    title = "Gas Not Carried"
    hint = "Send the transaction from your own account, or try again tomorrow. Nothing was sent."


class IdempotencyKeyReused(PaymentRefused):
    code = "idempotency-key-reused"
    title = "Idempotency Key Reused"
    hint = "Use a fresh Idempotency-Key for every new purchase."
    status = 409


class TabDue(PaymentRefused):
    code = "tab-due"
    title = "Tab Due"
    hint = "Pay what is owed: channelpay tab pay URL. Then this can go on the tab again."


class TabFull(TabDue):
    code = "tab-full"
    title = "Tab Full"
    hint = "Pay what is owed (channelpay tab pay URL), or send a voucher for this one."


class PassNotValid(PaymentRefused):
    code = "pass-not-valid"
    title = "Pass Not Valid"
    hint = "Pay by voucher, or buy a pass of this site. See: channelpay offers URL"


class PassEnded(PassNotValid):
    code = "pass-ended"
    title = "Pass Ended"
    hint = "Pay by voucher, or buy another pass. See: channelpay offers URL"


class PassNotCovering(PassNotValid):
    code = "pass-not-covering"
    title = "Not Covered by the Pass"
    hint = "Pay by voucher: the pass is for other paths of this site."


class PassSuspended(PassNotValid):
    code = "pass-suspended"
    title = "Pass Suspended"
    hint = "Sign the nonce with the channel's signer key, and send it as Payment-Pass-Proof."


class CouponNotValid(PaymentRefused):
    code = "coupon-not-valid"
    title = "Coupon Not Valid"
    hint = "Check the code, and that it is one of this site. Nothing was redeemed."


class CouponUsed(CouponNotValid):
    code = "coupon-used"
    title = "Coupon Used"
    hint = "Nothing was redeemed."


class CouponEnded(CouponNotValid):
    code = "coupon-ended"
    title = "Coupon Ended"
    hint = "Nothing was redeemed. Ask whoever gave you the code."


class TooManyAttempts(PaymentRefused):
    code = "too-many-attempts"
    title = "Too Many Attempts"
    hint = "Wait an hour, then check what you send, and send it once more."
    status = 429


class ChannelNotFound(PaymentRefused):
    code = "channel-not-found"
    title = "Channel Not Found"
    hint = "Open a channel to this payee, or present its open transaction first."
    status = 410
    problem = PROBLEM_BASE + "session/channel-not-found"


class ChannelClosing(PaymentRefused):
    code = "channel-closing"
    title = "Channel Closing"
    hint = "A close is requested: top the channel up to cancel it, or open another channel."
    status = 410
    problem = PROBLEM_BASE + "session/channel-finalized"


class ChannelFinalized(PaymentRefused):
    code = "channel-finalized"
    title = "Channel Finalized"
    hint = "This channel is closed for good; open another one."
    status = 410
    problem = PROBLEM_BASE + "session/channel-finalized"
