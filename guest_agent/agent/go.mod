module nexus/agent

go 1.27
