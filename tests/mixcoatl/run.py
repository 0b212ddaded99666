#!/usr/bin/env python3
"""Runs the unmodified mixcoatl 1.5.1 command line client against a running `dispatcher dev`.

    tests/mixcoatl/run.py READY.json [--site DIR] [--versions 2014-07-30,...] [--wait SECONDS]

READY.json is the file `dispatcher dev --ready-file` writes. DIR holds mixcoatl 1.5.1 with requests 2.27.1,
prettytable 1.0.1 and xmltodict 0.12.0 for Python 2.7; it is filled by pip when mixcoatl is not in it. Python 2.7 is
DISPATCHER_TEST_PYTHON27, or `python2.7` in PATH, or one under pyenv. Without one the run is skipped, loudly, with
status 77; with CI=true that is a failure.

Only the standard library is used here. Every step that fails is printed, and the status is 1 then.
"""

import argparse
import base64
import concurrent.futures
import glob
import hashlib
import hmac
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse

VERSIONS = ["2011-02-24", "2011-07-15", "2012-02-29", "2012-06-15", "2013-12-07", "2014-07-30", "2015-05-25"]
PACKAGES = ["mixcoatl==1.5.1", "requests==2.27.1", "prettytable==1.0.1", "xmltodict==0.12.0"]
SKIPPED = 77


class Failed(Exception):
    pass


def check(condition, text):
    if not condition:
        raise Failed(text)


def find_python():
    """An interpreter of Python 2.7, or None."""
    named = os.environ.get("DISPATCHER_TEST_PYTHON27")
    if named:
        return named
    found = shutil.which("python2.7")
    under_pyenv = sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/2.7*/bin/python2.7")))
    for candidate in ([found] if found else []) + under_pyenv:
        # A shim of pyenv is there even where its version is not chosen.
        if subprocess.run([candidate, "-c", "import json"], capture_output=True).returncode == 0:
            return candidate
    return None


def fill(python, site):
    """Makes sure that mixcoatl is in this folder."""
    if os.path.isdir(os.path.join(site, "mixcoatl")):
        return
    print("installing %s into %s" % (", ".join(PACKAGES), site))
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", site]
    subprocess.run(command + PACKAGES, check=True)


class Client:
    """mixcoatl's commands, at one version."""

    def __init__(self, ready, python, site, home, version):
        self.python, self.site = python, site
        self.environment = {
            "HOME": home,
            "PATH": "%s:/usr/bin:/bin" % os.path.join(site, "bin"),
            "PYTHONPATH": site,
            "DCM_ENDPOINT": "%s/api/enstratus/%s" % (ready["url"].rstrip("/"), version),
            "DCM_ACCESS_KEY": ready["accessKey"],
            "DCM_SECRET_KEY": ready["secretKey"],
            "DCM_API_VERSION": version,
            "DCM_SSL_VERIFY": "0",
        }

    def run(self, command, *arguments, status=0):
        """Its output; fails unless it ends with this status."""
        program = [self.python, os.path.join(self.site, "bin", command)] + [str(a) for a in arguments]
        done = subprocess.run(program, env=self.environment, capture_output=True, text=True, timeout=120)
        shown = "%s %s" % (command, " ".join(program[2:]))
        check(done.returncode == status, "%s ended with %s:\n%s%s" % (shown, done.returncode, done.stdout, done.stderr))
        check("Traceback" not in done.stderr, "%s:\n%s" % (shown, done.stderr))
        return done.stdout

    def json(self, command, *arguments):
        text = self.run(command, *arguments, "--json")
        try:
            return json.loads(text)
        except ValueError:
            raise Failed("%s --json is no JSON:\n%s" % (command, text[:500])) from None


class Raw:
    """Requests signed here, for what the client never sends."""

    def __init__(self, ready, version):
        url = urllib.parse.urlsplit(ready["url"])
        self.host, self.port = url.hostname, url.port
        self.access, self.secret, self.version = ready["accessKey"], ready["secretKey"], version

    def send(self, method, path, body=b"", at=None, headers=(), access=None, secret=None):
        """Status, headers, JSON or None."""
        access, secret = access or self.access, secret or self.secret
        whole = "/api/enstratus/%s/%s" % (self.version, path)
        stamp = str(int(time.time() * 1000) if at is None else at)
        text = ":".join([access, method, whole.split("?")[0], stamp, "driver"])
        signature = base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()).decode()
        all_headers = {
            "User-Agent": "driver",
            "x-esauth-access": access,
            "x-esauth-timestamp": stamp,
            "x-esauth-signature": signature,
            **dict(headers),
        }
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, whole, body=body or None, headers=all_headers)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        return response.status, response.headers, (json.loads(data) if data else None)

    def refused(self, status, part, *arguments, **named):
        """The request must get this status and an error that says this."""
        found, _, data = self.send(*arguments, **named)
        message = ((data or {}).get("error") or {}).get("message", "")
        check(found == status and part in message,
              "%s %s: wanted %s with \"%s\", got %s: %s" % (arguments[0], arguments[1], status, part, found, message))


def wait_for(client, job, limit):
    """Polls as the client's users do; what the job says at its end."""
    deadline = time.monotonic() + limit
    while True:
        word = client.run("dcm-check-job", job).strip()
        if word != "RUNNING":
            break
        check(time.monotonic() < deadline, "job %s still runs after %s seconds" % (job, limit))
        time.sleep(0.2)
    table = client.run("dcm-describe-job", job)
    check(word == "COMPLETE", "job %s ended as %s:\n%s" % (job, word, table))
    return dict(re.findall(r"\|\s+(.*?)\s+\|\s+(.*?)\s+\|", table))


def lists(client):
    """Every list of the issue's path, as a table, and what a launch needs from them."""
    client.run("dcm-list-api-versions")
    for command in ["clouds", "regions", "servers", "jobs", "billing-codes", "server-products"]:
        client.run("dcm-list-%s" % command)
    regions = client.json("dcm-list-regions")
    check(len(regions) >= 2, "fewer than two regions: %s" % regions)
    region = regions[0]["region_id"]
    check(isinstance(region, int), "ids must be numbers: %s" % regions[0])
    centers = client.json("dcm-list-datacenters", "--regionid", region)
    images = client.json("dcm-list-machine-images", "--regionid", region)
    products = client.json("dcm-list-server-products", "--regionid", region)
    codes = client.json("dcm-list-billing-codes")
    for name, found in [("datacenters", centers), ("images", images), ("products", products), ("codes", codes)]:
        check(found, "no %s in region %s" % (name, region))
    client.run("dcm-list-datacenters", "--regionid", region)
    client.run("dcm-list-machine-images", "--regionid", region)
    every = client.json("dcm-list-server-products")
    check(len(every) > len(products), "without a region all products are listed")
    return {
        "region": region,
        "datacenter": centers[0]["data_center_id"],
        "image": images[0]["machine_image_id"],
        "product": products[0]["provider_product_id"],
        "budget": codes[0]["billing_code_id"],
    }


def life(client, version, wanted, limit):
    """One server from launch to its end."""
    name = "mixcoatl-%s" % version
    job = client.run("dcm-create-server", "-p", wanted["product"], "-m", wanted["image"], "-d", wanted["datacenter"],
                     "-D", "made by mixcoatl", "-n", name, "-b", wanted["budget"]).strip()
    check(job.isdigit(), "dcm-create-server printed \"%s\", not a job" % job)
    shown = wait_for(client, job, limit)
    server = shown.get("Message", "")
    check(server.isdigit(), "the message of a complete launch is no server: %s" % shown)
    check(shown.get("Description") == "Launch server %s" % name, "description: %s" % shown)
    check(re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000$", shown.get("End Date", "")), "end: %s" % shown)

    table = client.run("dcm-describe-server", server)
    for part in [name, "made by mixcoatl", wanted["product"], "RUNNING", str(wanted["datacenter"])]:
        check(part in table, "dcm-describe-server says nothing of %s:\n%s" % (part, table))
    every = [s["server_id"] for s in client.json("dcm-list-servers")]
    check(int(server) in every, "server %s is not listed without a region: %s" % (server, every))
    here = [s["server_id"] for s in client.json("dcm-list-servers", "--region", wanted["region"])]
    check(int(server) in here, "server %s is not listed in its region" % server)
    client.run("dcm-list-servers", "-v")
    count = client.run("dcm-head", "infrastructure/Server").strip()
    check(count == str(len(every)), "HEAD counts %s servers, the list %s" % (count, len(every)))
    return server


def end(client, server, limit):
    client.run("dcm-set-server-terminate", "--serverid", server, "--extend", 1)
    client.run("dcm-rename-server", "-s", server, "-n", "renamed")
    table = client.run("dcm-describe-server", server)
    check("RUNNING" in table, "putting the end off terminated it:\n%s" % table)
    check("renamed" in table, "the new name is not there:\n%s" % table)
    text = client.run("dcm-terminate-server", "--server_id", server, "--reason", "the test is over")
    job = re.search(r"'jobId': (\d+)", text)
    check(job, "dcm-terminate-server printed no job: %s" % text)
    wait_for(client, job.group(1), limit)
    left = [s["server_id"] for s in client.json("dcm-list-servers")]
    check(int(server) not in left, "server %s is still listed" % server)
    missing = client.run("dcm-check-job", 999999999, status=1).strip()
    check(missing == "NONE", "dcm-check-job of no job printed %s" % missing)


def formats(client):
    """The other lists, and the commands that need no flags in the other formats."""
    for command in ["accounts", "groups", "roles", "role-assignments", "users", "customers", "api-keys",
                    "subscriptions"]:
        client.run("dcm-list-%s" % command)
    client.run("dcm-list-server-terminate", "--all")
    client.run("dcm-describe-license")
    for command in ["clouds", "firewalls", "jobs", "loadbalancers", "rdbms", "regions", "server-products", "servers",
                    "subscriptions", "users", "volumes"]:
        client.json("dcm-list-%s" % command)
        xml = client.run("dcm-list-%s" % command, "--xml")
        check(xml.lstrip().startswith("<"), "dcm-list-%s --xml: %s" % (command, xml[:200]))


def launch_body(wanted, name):
    return json.dumps({"launch": [{
        "product": {"productId": wanted["product"]},
        "machineImage": {"machineImageId": wanted["image"]},
        "dataCenter": {"dataCenterId": wanted["datacenter"]},
        "budget": wanted["budget"], "name": name, "description": "d",
    }]}).encode()


def faults(raw, wanted):
    """Wrong requests: each the right status, and an error that names the fault."""
    now = int(time.time() * 1000)
    server = "infrastructure/Server"
    raw.refused(403, "signature does not match", "GET", "admin/Job", secret="wrong")
    raw.refused(403, "NOBODY", "GET", "admin/Job", access="NOBODY")
    raw.refused(403, "window", "GET", "admin/Job", at=now - 301000)
    raw.refused(403, "window", "GET", "admin/Job", at=now + 302000)
    raw.refused(400, "line 1 column", "POST", server, b"{\"launch\": [")
    raw.refused(400, "launch[0].name: missing", "POST", server, b"{\"launch\": [{}]}")
    body = launch_body({**wanted, "image": 99}, "x")
    raw.refused(400, "machineImage.machineImageId: no machine image 99", "POST", server, body)
    raw.refused(413, "larger", "POST", server, b"{\"x\":\"" + b"y" * (2 << 20) + b"\"}")
    raw.refused(404, "no server 999999999", "DELETE", server + "/999999999?reason=r")
    raw.refused(404, "no resource", "GET", "infrastructure/Nothing")
    raw.refused(501, "not built", "POST", "infrastructure/Volume", b"{}")


def once(raw, wanted):
    """A repeated write is refused, unless a key says that it is meant; a key makes one job."""
    now, server = int(time.time() * 1000), "infrastructure/Server"
    body = b"{\"addBillingCode\": [{\"name\": \"once\", \"financeCode\": \"O\"}]}"
    status, _, first = raw.send("POST", "admin/BillingCode", body, at=now)
    check(status == 201, "addBillingCode: %s %s" % (status, first))
    raw.refused(403, "replay", "POST", "admin/BillingCode", body, at=now)
    code = first["billingCodes"][0]["billingCodeId"]
    status, _, data = raw.send("DELETE", "admin/BillingCode/%s?reason=over" % code)
    check(status == 204, "deleting billing code %s: %s %s" % (code, status, data))

    key = (("Idempotency-Key", "driver-%s" % now),)
    body = launch_body(wanted, "one-of-a-hundred")
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        sent = [pool.submit(raw.send, "POST", server, body, headers=key) for _ in range(100)]
        answers = [future.result() for future in sent]
    check({status for status, _, _ in answers} == {202}, "not all 202: %s" % sorted({a[0] for a in answers}))
    jobs = {data["jobs"][0]["jobId"] for _, _, data in answers}
    check(len(jobs) == 1, "one key made %s jobs" % len(jobs))
    raw.refused(409, "idempotency key", "POST", server, launch_body(wanted, "another"), headers=key)
    return jobs.pop()


def everything(ready, python, site, versions, limit):
    home = tempfile.mkdtemp(prefix="mixcoatl-home-")
    failures = 0

    def step(name, work, *arguments):
        nonlocal failures
        began = time.monotonic()
        try:
            result = work(*arguments)
            print("ok    %-32s %.1f s" % (name, time.monotonic() - began), flush=True)
            return result
        except (Failed, OSError, subprocess.SubprocessError) as error:
            failures += 1
            print("FAIL  %s: %s" % (name, error), flush=True)
            return None

    try:
        for version in versions:
            client = Client(ready, python, site, home, version)
            wanted = step("%s lists" % version, lists, client)
            server = wanted and step("%s launch" % version, life, client, version, wanted, limit)
            if server:
                step("%s terminate" % version, end, client, server, limit)
        client, raw = Client(ready, python, site, home, versions[-1]), Raw(ready, versions[-1])
        step("json and xml", formats, client)
        wanted = step("lists", lists, client)
        if wanted:
            step("faults", faults, raw, wanted)
            job = step("once", once, raw, wanted)
            shown = job and step("one of a hundred", wait_for, client, job, limit)
            if shown:
                step("its end", end, client, shown["Message"], limit)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ready", help="file that `dispatcher dev --ready-file` wrote")
    parser.add_argument("--site", default=os.environ.get("DISPATCHER_TEST_MIXCOATL", "target/mixcoatl"),
                        help="folder with mixcoatl; filled when empty (default: %(default)s)")
    parser.add_argument("--versions", default=",".join(VERSIONS), help="versions to try (default: all)")
    parser.add_argument("--wait", type=float, default=60, help="seconds a job may take (default: %(default)s)")
    arguments = parser.parse_args()
    python = find_python()
    if python is None:
        print("SKIPPED: no Python 2.7; set DISPATCHER_TEST_PYTHON27 to one. mixcoatl was NOT tried.", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else SKIPPED
    site = os.path.abspath(arguments.site)
    fill(python, site)
    with open(arguments.ready, encoding="utf-8") as file:
        ready = json.load(file)
    failures = everything(ready, python, site, arguments.versions.split(","), arguments.wait)
    print("%s failed" % failures if failures else "all passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
