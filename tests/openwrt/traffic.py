#!/usr/bin/env python3
"""Traffic for the test on OpenWrt, and a name server.

  serve              on the internet's side: port 8000 sends without end, port 8001 echoes
  reach HOST         fails unless HOST echoes within a second
  fetch HOST SECONDS the rate of one connection, in Mbit/s
  hold HOST FILE     one connection that echoes ten times a second until FILE exists; prints how many echoes came and the
                     longest pause in ms, and fails if the connection was lost
  names ADDRESS NAME answers every question for NAME with ADDRESS, others with "no such name"
"""
import os, select, socket, sys, threading, time


def send_for_ever(connection):
    try:
        while True:
            connection.sendall(bytes(65536))
    except OSError:
        connection.close()


def echo(connection):
    try:
        while data := connection.recv(65536):
            connection.sendall(data)
    except OSError:
        pass
    connection.close()


def serve():
    listeners = {}
    for port, worker in ((8000, send_for_ever), (8001, echo)):
        listener = socket.create_server(("", port))
        listeners[listener] = worker
    while True:
        for listener in select.select(list(listeners), [], [])[0]:
            connection, _ = listener.accept()
            threading.Thread(target=listeners[listener], args=(connection,), daemon=True).start()


def reach(host):
    connection = socket.create_connection((host, 8001), timeout=1)
    connection.sendall(b"x")
    if connection.recv(1) != b"x":
        sys.exit("no echo")


def fetch(host, seconds):
    connection = socket.create_connection((host, 8000), timeout=10)
    start, received = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        received += len(connection.recv(65536))
    print(f"{received * 8 / (time.monotonic() - start) / 1e6:.1f}")


def hold(host, end):
    # Longer than any change may take, so that only a lost connection fails.
    connection = socket.create_connection((host, 8001), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    echoes, longest = 0, 0.0
    while not os.path.exists(end):
        sent = time.monotonic()
        connection.sendall(b"x")
        if not connection.recv(1):
            sys.exit("the connection was closed")
        echoes, longest = echoes + 1, max(longest, time.monotonic() - sent)
        time.sleep(0.1)
    print(f"{echoes} echoes, longest pause {longest * 1000:.0f} ms")


def names(address, name):
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("198.18.0.1", 53))
    wanted = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    while True:
        question, client = server.recvfrom(512)
        end = question.find(b"\0", 12) + 1
        asked, kind = question[12:end], question[end : end + 4]
        if end < 13 or len(kind) < 4:
            continue
        known = asked.lower() == wanted
        answers = known and kind == b"\0\1\0\1"
        flags = b"\x84\0" if known else b"\x84\3"
        reply = question[:2] + flags + b"\0\1" + (b"\0\1" if answers else b"\0\0") + bytes(4) + asked + kind
        if answers:
            reply += b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(address)
        server.sendto(reply, client)
        print(f"{client[0]} asked for {asked!r}", flush=True)


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["serve"]:
                serve()
            case ["reach", host]:
                reach(host)
            case ["fetch", host, seconds]:
                fetch(host, float(seconds))
            case ["hold", host, end]:
                hold(host, end)
            case ["names", address, name]:
                names(address, name)
            case _:
                sys.exit(__doc__)
    except KeyboardInterrupt:
        pass
