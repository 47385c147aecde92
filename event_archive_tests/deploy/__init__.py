"""What the tests know of deployment: manifests, the Helm chart, the Dockerfile."""
