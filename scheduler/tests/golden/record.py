#!/usr/bin/env python3
"""Ask a kernel for the choices in golden files.

    record.py FILE.txt...       play each on a kernel's IPVS and write down what it chose
    record.py --check FILE.txt  only say where it chose otherwise

The files say what is done; ../golden.rs has their grammar. What stands after an arrow counts only by its length, so a
new file may have any letters there. Needs `ipvs-oracle` on the path (or its place in IPVS_ORACLE), which boots
Linux 6.1 as a process; a file takes some seconds.

A service whose servers have port 0 is one by firewall mark, its destinations those of the file, and direct routing.
"""
import json
import os
import subprocess
import sys
import tempfile

MARK = 5


def server_of(words):
    """The address of an `add` line without the port, and the port."""
    address, _, port = words[2].rpartition(":")
    return address, int(port)


def scenario(lines):
    """What ipvs-oracle is to do for the lines of a file."""
    opens = [words for words in lines if words[0] == "open"]
    servers = {words[1]: server_of(words) for words in lines if words[0] == "add"}
    marked = all(port == 0 for _, port in servers.values())
    result = {"about": "choices of a scheduler", "steps": []}
    if marked:
        result["vips"] = sorted({words[3].rpartition(":")[0] for words in opens})
        result["iptables"] = [f"-t mangle -A PREROUTING -d {vip} -j MARK --set-mark {MARK}" for vip in result["vips"]]
        service = f"-f {MARK}"
    else:
        service = f"{'-t' if opens[0][1] == 'tcp' else '-u'} {opens[0][3]}"

    def server(command, words):
        address, port = servers[words[1]]
        name = address if marked else f"{address}:{port}"
        line = f"{command} {service} -r {name}"
        if command != "-d":
            line += f" {'-g' if marked else '-m'} -w {words[words.index('weight') + 1]}"
            line += f" -x {words[-1]}" if "most" in words else ""
        return {"ipvsadm": line}

    attached = False
    for words in lines:
        if words[0] == "scheduler":
            options = f" -b {','.join(words[2:])}" if words[2:] else ""
            step = {"ipvsadm": f"{'-E' if attached else '-A'} {service} -s {words[1]}{options}"}
            attached = True
        elif words[0] in ("add", "edit", "delete"):
            step = server({"add": "-a", "edit": "-e", "delete": "-d"}[words[0]], words)
        elif words[0] == "open":
            step = {"open": {
                "n": len(words[10]), "proto": words[1], "src": words[2], "dst": words[3], "first": int(words[5]),
                "vary": words[7], "stride": int(words[8]), "until": "established"}}
        else:
            step = {"close": {"which": [int(number) for number in words[1:]], "how": "fin"}}
        result["steps"].append(step)
    return result, servers


def play(plan):
    with tempfile.TemporaryDirectory() as directory:
        asked, told = (os.path.join(directory, name) for name in ("scenario.json", "result.json"))
        with open(asked, "w", encoding="utf-8") as file:
            json.dump(plan, file)
        subprocess.run([os.environ.get("IPVS_ORACLE", "ipvs-oracle"), "run", asked, "-o", told], check=True)
        with open(told, encoding="utf-8") as file:
            return json.load(file)["results"]


def record(path, check):
    with open(path, encoding="utf-8") as file:
        text = file.read().splitlines()
    places = [number for number, line in enumerate(text) if line and not line.startswith("#")]
    plan, servers = scenario([text[number].split() for number in places])
    letters = {address: letter for letter, (address, _) in servers.items()}
    same = True
    for number, step in zip(places, play(plan), strict=True):
        for command in step.get("ipvsadm", []):
            if command["rc"]:
                sys.exit(f"{path}:{number + 1}: {command['output']}")
        if "open" in step:
            chosen = "".join(
                "-" if choice is None else letters.get(choice) or letters[choice.rpartition(":")[0]]
                for choice in step["open"]["choices"])
            before, _, written = text[number].rpartition(" ")
            if written != chosen:
                same = False
                print(f"{path}:{number + 1}: {chosen}")
            text[number] = f"{before} {chosen}"
    if not check:
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(text) + "\n")
    return same


def main():
    check = sys.argv[1:2] == ["--check"]
    # All of them, not only up to the first that differs.
    same = [record(path, check) for path in sys.argv[1 + check:]]
    sys.exit(check and not all(same))


main()
