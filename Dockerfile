# mist serve in a container: docs/serve.md says how to build and run it.
FROM python:3.12-slim AS build
ARG PIP_OPTIONS=""
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/mistnn \
 && /opt/mistnn/bin/pip install --no-cache-dir ${PIP_OPTIONS} -c constraints.txt '.[serve,photos]'

FROM python:3.12-slim
RUN useradd --create-home --uid 1000 mist
COPY --from=build /opt/mistnn /opt/mistnn
ENV PATH=/opt/mistnn/bin:$PATH PYTHONUNBUFFERED=1
USER mist
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"]
ENTRYPOINT ["mist", "serve", "--host", "0.0.0.0"]
CMD ["mist-mnist-hard"]
