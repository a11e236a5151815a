"""Three replicas on one PostgreSQL under load, and everything that can go wrong; then an audit from outside.

    python -m chaos [SECONDS] [SEED]      (./dev chaos does the rest)

`schedule` turns a seed into faults, `stage` is what they happen to, `load` is who calls meanwhile, `user_service` is whom
sagas call, `audit` says what is wrong afterwards, `run` puts it together. What is on stage, when which fault comes, what
is asked for and how the user service and the provider lie: all of it is drawn from the seed. Only how long things take is
not.
"""
