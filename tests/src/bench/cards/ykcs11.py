"""Signs again and again in one session of libykcs11: one login, RUNS signatures of one digest by the
key with the identifier 01. Prints the nanoseconds of each. The PIN is the line on standard input."""

import ctypes
import sys
import time

MODULE, RUNS = sys.argv[1], int(sys.argv[2])
PIN = sys.stdin.readline().strip().encode()
# PKCS #11 v2.40, section 2 and appendix B.
SERIAL_SESSION, USER = 4, 1
CLASS, PRIVATE_KEY, ID, ECDSA = 0, 3, 0x102, 0x1041
ULONG = ctypes.c_ulong


class Attribute(ctypes.Structure):
    _fields_ = [("type", ULONG), ("value", ctypes.c_void_p), ("length", ULONG)]


class Mechanism(ctypes.Structure):
    _fields_ = [("mechanism", ULONG), ("parameter", ctypes.c_void_p), ("length", ULONG)]


def call(name, *args):
    result = getattr(module, name)(*args)
    if result != 0:
        sys.exit(f"{name}: {result:#x}")


module = ctypes.CDLL(MODULE)
call("C_Initialize", None)
count = ULONG(16)
slots = (ULONG * 16)()
call("C_GetSlotList", ctypes.c_ubyte(1), slots, ctypes.byref(count))
session = ULONG()
call("C_OpenSession", slots[0], ULONG(SERIAL_SESSION), None, None, ctypes.byref(session))
call("C_Login", session, ULONG(USER), PIN, ULONG(len(PIN)))
kind, number = ULONG(PRIVATE_KEY), ctypes.c_ubyte(1)
template = (Attribute * 2)(
    Attribute(CLASS, ctypes.cast(ctypes.byref(kind), ctypes.c_void_p), ctypes.sizeof(kind)),
    Attribute(ID, ctypes.cast(ctypes.byref(number), ctypes.c_void_p), 1),
)
call("C_FindObjectsInit", session, template, ULONG(2))
key, found = ULONG(), ULONG()
call("C_FindObjects", session, ctypes.byref(key), ULONG(1), ctypes.byref(found))
call("C_FindObjectsFinal", session)
if found.value != 1:
    sys.exit("no such key")
mechanism = Mechanism(ECDSA, None, 0)
for _ in range(RUNS):
    signature, length = (ctypes.c_ubyte * 128)(), ULONG(128)
    begun = time.monotonic_ns()
    call("C_SignInit", session, ctypes.byref(mechanism), key)
    call("C_Sign", session, bytes(32), ULONG(32), signature, ctypes.byref(length))
    print(time.monotonic_ns() - begun, flush=True)
call("C_CloseSession", session)
call("C_Finalize", None)
