#!/usr/bin/env python3
"""Verifies a file of `signet log export`: log-verify.py EXPORT [FILE WITH CHECKPOINTS KEPT ELSEWHERE ...]
Exit 0: it holds; 3: it does not. docs/log-format.md says what is proved."""
import datetime, hashlib, json, struct, sys

P = 2**255 - 19  # Ed25519: RFC 8032, 5.1
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P

def add(p, q):
    (a, b), (c, d) = p, q
    k = D * a * b * c * d % P
    return (a * d + b * c) * pow(1 + k, -1, P) % P, (b * d + a * c) * pow(1 - k, -1, P) % P

def times(n, p):
    sum = (0, 1)
    while n:
        if n & 1:
            sum = add(sum, p)
        p, n = add(p, p), n >> 1
    return sum

def point(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    xx = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - xx) % P or y >= P or (x == 0 and sign):
        raise ValueError("no point")
    return (P - x if x & 1 != sign else x), y

def signed_by(key, message, signature):
    base = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
    s = int.from_bytes(signature[32:], "little")
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    return len(signature) == 64 and s < L and times(s, base) == add(point(signature[:32]), times(k, point(key)))

def seconds(text):
    return int(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()) if text else 0

def entry_hash(prev, e):
    facts = [json.dumps(e["facts"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)] if e["facts"] is not None else []
    texts = [e["kind"], e["gun"], e["role"], bytes.fromhex(e["key"] or ""), bytes.fromhex((e["payload"] or "").removeprefix("sha256:"))]
    texts += [e["summary"], e["caller"], e["rule"], e["outcome"]] + facts
    data = b"signet log entry v%d\n" % (2 if facts else 1)
    data += struct.pack(">QqII", e["number"], seconds(e["time"]), e["version"] or 0, e["grade"] or 0)
    for text in texts:
        text = text if isinstance(text, bytes) else (text or "").encode()
        data += struct.pack(">I", len(text)) + text
    return hashlib.sha256(prev + data).digest()

def checkpoint(line, hashes):
    try:
        c = json.loads(line)
        entry, head = c["entry"], bytes.fromhex(c["head"])
        message = b"signet log checkpoint v1\n" + struct.pack(">Qq", entry, seconds(c["time"])) + head
        if c["checkpoint"] != 1:
            return entry, "it is of another version"
        if (c["key"] or c["signature"]) and not signed_by(*map(bytes.fromhex, (c["key"], message.hex(), c["signature"]))):
            return entry, "its signature does not verify"
        if entry not in hashes:
            return entry, f"the log ends with entry {max(hashes)}: entries were cut off, or it is of another log"
        return entry, None if hashes[entry] == head else "that entry is another one now"
    except Exception:  # whatever a changed file brings
        return None, "it cannot be read"

def main(export, elsewhere):
    problems, hashes, own, end, proved = [], {0: bytes(32)}, [], None, 0
    for line in open(export, encoding="utf-8", errors="replace"):
        try:
            e = json.loads(line)
            if "checkpoint" in e:
                own.append((None, line))
            elif "end" in e:
                end = e
            elif (e["v"], e["number"]) == (1, len(hashes)) and entry_hash(hashes[e["number"] - 1], e).hex() == e["hash"]:
                hashes[e["number"]] = bytes.fromhex(e["hash"])
            else:
                raise ValueError
        except Exception:
            problems.append(f"entry {len(hashes)}, or the one before it, was changed or is missing")
            break
    newest = len(hashes) - 1
    if not problems and end != {"end": {"entries": newest, "head": hashes[newest].hex()}, "v": 1}:
        problems.append(f"the export was cut: it ends after entry {newest}")
    lines = [(f, l, l.find('{"checkpoint":')) for f in elsewhere for l in open(f, encoding="utf-8", errors="replace")]
    kept = [(f, l[at:]) for f, l, at in lines if at >= 0]
    for where, line in own + kept:
        entry, problem = checkpoint(line, hashes)
        problems += [f"checkpoint of entry {entry} from {where or 'the log itself'}: {problem}"] if problem else []
        proved = max(proved, entry if where and not problem else 0)
    print(f"{newest} entries hold; unchanged up to entry {proved}, consistent only after it"
          if proved else f"{newest} entries hold; consistent only: no checkpoint from elsewhere was compared")
    print(*(f"DOES NOT HOLD: {problem}" for problem in problems), sep="\n", end="\n" if problems else "")
    return 3 if problems else 0

if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else print(__doc__) or 2)
