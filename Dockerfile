# One image for the code server, for run pods and for the CronJob: what a container is to do is its arguments.
# Needs nothing writable but /tmp, and DAGSTER_HOME where Dagster's records are files in it.
# Other Pythons, 3.11 to 3.13: docker build --build-arg PYTHON_VERSION=3.13 --tag event-archive .
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS build
# Where it is set, bytecode and wheel hold no time of the build, and one commit makes one image.
ARG SOURCE_DATE_EPOCH
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ONLY_BINARY=:all: \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.lock requirements-build.lock ./
# Without pip: what builds and installs stays behind in this stage.
RUN python -m venv --without-pip /opt/event-archive \
    && pip --python /opt/event-archive install --require-hashes --requirement requirements.lock \
    && pip install --require-hashes --requirement requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY event_archive ./event_archive
RUN python -m hatchling build --target wheel --directory /src/dist \
    && pip --python /opt/event-archive install --no-deps /src/dist/*.whl

FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="event_archive" \
      org.opencontainers.image.description="Ages events out of PostgreSQL into one CSV a UTC day on Azure Data Lake" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/event-archive /opt/event-archive
# The user has no home, and Python keeps its bytecode where it was installed.
ENV PATH=/opt/event-archive/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /opt/event-archive
USER 10001:10001
EXPOSE 4000
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s --retries=3 \
    CMD ["dagster", "api", "grpc-health-check", "--port", "4000"]
# No ENTRYPOINT: Dagster and the CronJob give whole commands as arguments.
CMD ["dagster", "api", "grpc", "--host", "0.0.0.0", "--port", "4000", "--module-name", "event_archive.definitions"]
