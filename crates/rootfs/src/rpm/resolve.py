# Run by Kiln in the tools root, with the distribution's own dnf: what is asked stands in the file of the first argument (JSON), the
# answer is one JSON object a line on standard output, which nothing else writes to.
import json
import os
import sys

answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def say(kind, **what):
    answer.write(json.dumps(dict(what, kind=kind)) + "\n")
    answer.flush()


with open(sys.argv[1]) as file:
    asked = json.load(file)

import dnf
import dnf.conf
import dnf.exceptions
import libdnf.transaction

conf = dnf.conf.Conf()
for name in ("installroot", "cachedir", "persistdir", "logdir"):
    path = os.path.join(asked["scratch"], name)
    os.makedirs(path, exist_ok=True)
    setattr(conf, name, path)
conf.reposdir = [os.path.join(asked["scratch"], "none")]
conf.pluginpath = []
conf.varsdir = []
conf.best = True
# Metadata was verified before it came here, and files are verified when they are fetched.
conf.gpgcheck = False
conf.skip_if_unavailable = False
conf.install_weak_deps = asked["weak"]
conf.multilib_policy = "all" if asked["multilib"] else "best"
conf.excludepkgs = asked["exclude"]
if asked["filelists"] and hasattr(conf, "optional_metadata_types"):
    conf.optional_metadata_types = ["filelists"]
conf.module_platform_id = asked["platform"]
conf.substitutions["arch"] = conf.substitutions["basearch"] = asked["architecture"]
conf.substitutions["releasever"] = asked["release"]
base = dnf.Base(conf)
for repository in asked["repositories"]:
    base.repos.add_new_repo(
        repository["name"],
        conf,
        baseurl=["file://" + repository["path"]],
        cost=repository["cost"],
        excludepkgs=repository["exclude"],
        includepkgs=repository["include"],
    )
base.fill_sack(load_system_repo=False)

missing = []
if asked["only"] is not None:
    only = set(asked["only"])
    form = "{0.repoid} {0.name}-{0.epoch}:{0.version}-{0.release}.{0.arch}"
    base.sack.add_excludes([package for package in base.sack.query() if form.format(package) not in only])
if asked["modules"]:
    from dnf.module.module_base import ModuleBase

    for module in asked["modules"]:
        try:
            ModuleBase(base).enable([module])
        except dnf.exceptions.Error as error:
            missing.append(module)
            say("missing", asked=module, why=str(error))
for name in asked["install"]:
    try:
        base.install(name, strict=True)
    except dnf.exceptions.Error as error:
        missing.append(name)
        say("missing", asked=name, why=str(error))
if missing:
    sys.exit(0)
try:
    base.resolve()
except dnf.exceptions.DepsolveError:
    for problem in base._goal.problem_rules():
        say("problem", rules=list(problem))
    sys.exit(0)
ASKED = (libdnf.transaction.TransactionItemReason_USER, libdnf.transaction.TransactionItemReason_GROUP)
for package in base.transaction.install_set:
    say(
        "package",
        name=package.name,
        epoch=package.epoch,
        version=package.version,
        release=package.release,
        architecture=package.arch,
        repository=package.repoid,
        asked=base._goal.get_reason(package) in ASKED,
        recommends=[str(r) for r in package.recommends],
        supplements=[str(r) for r in package.supplements],
    )
say("end")
