# frozen_string_literal: true

# The concern in the smallest Rails application: puma --bind tcp://127.0.0.1:9292
require 'action_controller/railtie'
require_relative 'identity'

class Backend < Rails::Application
  config.eager_load = true
  config.secret_key_base = 'signs no cookie here'
  config.logger = Logger.new($stdout) # where a container's log belongs
  config.hosts.clear # the sidecar keeps the Host that the client named
  routes.append { get '/protected', to: 'access#show' }
end

class AccessController < ActionController::API
  include Identity

  def show
    render json: { message: 'Access granted', sub: user_id, user: current_user }
  end
end

Backend.initialize!
run Backend
