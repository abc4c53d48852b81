#!/bin/bash
# The platform's role, which is no superuser: it owns its database and may create others. It gets the password that the
# image gave the superuser, who can then sign in inside the container only.
psql --username "$POSTGRES_USER" --dbname postgres --no-psqlrc --quiet --set ON_ERROR_STOP=1 \
  --set password="$POSTGRES_PASSWORD" --set database="$POSTGRES_DB" --set superuser="$POSTGRES_USER" <<'SQL'
CREATE ROLE optiinfra LOGIN CREATEDB PASSWORD :'password';
ALTER DATABASE :"database" OWNER TO optiinfra;
ALTER ROLE :"superuser" PASSWORD NULL;
SQL
